"""A sweep from its file to its champion. Whatever happens on the way, no run is left open and Ray is stopped."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from tune.config import SweepConfig
from tune.events import OBJECTIVE, EventLog, Listener, State
from tune.finale import crown, summarise
from tune.home import Home
from tune.ledger import Ledger
from tune.mlflow_writer import SweepFacts
from tune.plan import TRAINING, SweepPlan, discard, make_plan
from tune.resources import SETTINGS, cluster_nodes, count_slots, environment, ray_session
from tune.results import SweepOutcome
from tune.terminal import Terminal
from tune.tracking import CLIENT_SETTINGS, Tracker
from tune.worker import training_entry


class SweepFailed(RuntimeError):
    """No trial of a sweep gave a result."""


def run_sweep(
    config: SweepConfig,
    *,
    home: Home,
    console: Console,
    training: str = TRAINING,
    address: str | None = None,
    verbose: bool = False,
) -> SweepOutcome:
    """Runs a sweep and returns what it found; prints progress, not the result.

    Args:
        training: module with the functions of `tune.worker.TrainingEntry`.
        address: of a Ray cluster; default: RAY_ADDRESS, else Ray is started on this machine for the sweep.

    Raises UserError for bad data, weights or resources before any trial, SweepFailed if every trial failed. After
    Ctrl-C it returns partial results."""
    with environment(SETTINGS | CLIENT_SETTINGS):
        return _Sweep(make_plan(config, home, training), console).run(address=address, verbose=verbose)


class _Sweep:
    """One sweep under way."""

    def __init__(self, plan: SweepPlan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._materials: Future[Any] = Future()
        self._exporting = threading.Lock()
        self._outcome = SweepOutcome(
            sweep_id=plan.sweep_id,
            domain=plan.domain,
            folder=plan.folder,
            seed=plan.config.run.train.seed,
            ledger=Ledger(),
            tracking_uri=plan.tracking_uri,
        )

    def run(self, *, address: str | None, verbose: bool) -> SweepOutcome:
        """The whole sweep."""
        tracker: Tracker | None = None
        state: State = "FAILED"
        try:
            with ThreadPoolExecutor(1) as pool:
                # The base model is scored on the validation images while Ray starts: both take seconds.
                self._materials = pool.submit(self._load_materials)
                with ray_session(address, verbose=verbose):
                    slots = self._count_slots()
                    self._materials.result()  # bad data or weights stop here, before any trial
                    tracker = Tracker(
                        self._plan.tracking_uri, self._facts(), bundle_of=self._bundle_of, warn=self._warn
                    )
                    self._search(slots, tracker, verbose=verbose)
            state = self._conclude(tracker)
        except KeyboardInterrupt:
            state = "KILLED"
            raise
        finally:
            if tracker is None:
                discard(self._plan)
            else:
                self._outcome.tracking = tracker.close(summarise(self._outcome, state))
        if state == "FAILED":
            raise SweepFailed(
                f"every trial of {self._plan.sweep_id} failed; the first said: {self._outcome.first_error} "
                f"(all: {self._plan.folder / 'events.jsonl'})"
            )
        return self._outcome

    def _count_slots(self) -> int:
        resources, nodes = self._plan.config.resources, cluster_nodes()
        gpus = sum(node.get("GPU", 0.0) for node in nodes)
        if gpus and not resources.gpus_per_worker:
            self._warn(f"{gpus:g} GPU will stay idle: set resources.gpus_per_worker=1, or a fraction to share one")
        if len(nodes) > 1 and self._plan.config.storage is None:
            self._warn(
                f"{len(nodes)} nodes must all see {self._plan.folder} and {self._plan.config.data}: "
                "trials keep their checkpoints there (set storage to a shared folder)"
            )
        return count_slots(resources, nodes, self._plan.config.search.trials)

    def _load_materials(self) -> Any:
        plan = self._plan
        entry = training_entry(plan.training)
        return entry.load_materials(plan.config.run.model, plan.config.data, device=plan.device, baselines=True)

    def _facts(self) -> SweepFacts:
        plan = self._plan
        return SweepFacts(
            sweep_id=plan.sweep_id,
            domain=plan.domain,
            experiment=plan.config.tracking.experiment,
            artifacts=plan.home.artifacts if plan.tracking_uri.startswith("sqlite:") else None,
            settings=plan.settings,
            params=plan.fixed_params(),
            tags={
                "data_digest": plan.data_digest,
                "seed": str(plan.config.run.train.seed),
                "protocol": plan.protocol,
            },
        )

    def _search(self, slots: int, tracker: Tracker, *, verbose: bool) -> None:
        from tune.study import quiet, search

        quiet(verbose)
        config, log = self._plan.config, EventLog(self._plan.folder / "events.jsonl")
        try:
            with Terminal(self._console, trials=config.search.trials, epochs=config.run.train.epochs) as terminal:
                listeners: list[Listener] = [self._outcome.ledger, log, tracker, terminal]
                self._outcome.interrupted = search(self._plan, slots=slots, listeners=listeners)
        finally:
            log.close()

    def _conclude(self, tracker: Tracker) -> State:
        """Champion, test score and promotion; the state of the sweep."""
        outcome = self._outcome
        outcome.champion = outcome.ledger.champion()
        if outcome.champion is not None:
            outcome.bundle = self._bundle_of(outcome.champion.trial_id)
            crown(outcome, self._plan, self._materials.result(), tracker, self._console)
        if outcome.interrupted:
            return "KILLED"
        return "FAILED" if outcome.champion is None else "FINISHED"

    def _bundle_of(self, trial_id: str) -> Path | None:
        """The bundle of a trial's best epoch, made on first demand; None without checkpoint."""
        plan, trial = self._plan, self._outcome.ledger.trials[trial_id]
        if trial.best is None or trial.best.checkpoint is None:
            return None
        out = plan.folder / "trials" / trial_id / "bundle"
        with self._exporting:  # the tracker's thread and the end of the sweep may ask at once
            if not out.exists():
                from infosam.bundle import export_bundle

                card = {
                    "domain": plan.domain,
                    "sweep_id": plan.sweep_id,
                    "trial_id": trial_id,
                    "searched": dict(trial.values),
                    "protocol": plan.protocol,
                    "selected_by": f"{OBJECTIVE} with prompt {plan.config.run.train.select}",
                }
                export_bundle(Path(trial.best.checkpoint), self._materials.result(), out, card=card)
        return out

    def _warn(self, text: str) -> None:
        self._console.print(f"[yellow]{text}[/]", soft_wrap=True, highlight=False)
