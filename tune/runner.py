"""A sweep from its file to its champion, or on from where its driver died. Whatever happens on the way, no run is left
open, Ray is stopped, and the event log says where to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from rich.console import Console

from tune.config import SweepConfig
from tune.event_log import NAME, EventLog
from tune.events import Event, Listener, State
from tune.finale import crown, recall, summarise
from tune.finals import SEED, Finals
from tune.home import Home
from tune.interrupt import Interrupt
from tune.ledger import Ledger
from tune.plan import TRAINING, SweepPlan, discard, make_plan
from tune.resources import SETTINGS, cluster_nodes, count_slots, environment, ray_session
from tune.results import SweepOutcome, resume_command
from tune.resume import check_weights, drop_stale_bundles, find_sweep, is_over, reopen, trials_left
from tune.stores import check_store
from tune.sweep_facts import sweep_started
from tune.sync import StoredFiles
from tune.terminal import Terminal
from tune.tracking import CLIENT_SETTINGS, Tracker
from tune.trial_files import SweepFiles
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
        plan = make_plan(config, home, training)
        for note in plan.notes:
            console.print(note, soft_wrap=True, highlight=False)
        with contextlib.closing(EventLog(plan.folder / NAME)) as log:
            return _Sweep(plan, Ledger(), log, console).run(address=address, verbose=verbose)


def resume_sweep(
    name: str,
    *,
    home: Home,
    console: Console,
    overrides: Sequence[str] = (),
    training: str = TRAINING,
    address: str | None = None,
    verbose: bool = False,
) -> SweepOutcome:
    """Goes on with a sweep whose driver ended, however it did; a sweep that is over only gives its result.

    Args: name: of the sweep, or the path of its folder; overrides: see `tune.resume.reopen`; the rest as `run_sweep`.

    Raises UserError for a sweep that is not there, runs, or has other data or weights by now; else as `run_sweep`."""
    folder = find_sweep(name, home)
    with environment(SETTINGS | CLIENT_SETTINGS), contextlib.closing(EventLog(folder / NAME)) as log:
        ledger = Ledger.replay(log.path)
        sweep = _Sweep(reopen(folder, ledger, home, training=training, overrides=overrides), ledger, log, console)
        return sweep.recall() if is_over(ledger) else sweep.run(address=address, verbose=verbose)


class _Sweep:
    """One sweep under way; `ledger` is what earlier drivers did."""

    def __init__(self, plan: SweepPlan, ledger: Ledger, log: EventLog, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._materials: Future[Any] = Future()
        self._outcome = SweepOutcome(
            sweep_id=plan.sweep_id,
            domain=plan.domain,
            folder=plan.folder,
            seed=plan.config.run.train.seed,
            ledger=ledger,
            tracking_uri=plan.tracking_uri,
        )
        self._files = SweepFiles(plan, ledger.trials, lambda: self._materials.result())
        self._log = log
        self._listeners: list[Listener] = [log]
        self._is_new = ledger.sweep is None
        self._tracker: Tracker | None = None
        self._finals = Finals(plan.config.final, plan.config.run, ledger)
        self._interrupt = Interrupt(notice=self._notice, last_words=self._last_words)

    def recall(self) -> SweepOutcome:
        """The result of a sweep that is over."""
        self._console.print(f"{self._plan.sweep_id} is over: nothing to do", style="dim", highlight=False)
        self._choose_champion()
        recall(self._outcome, self._plan)
        files = StoredFiles(self._plan.folder, self._outcome.ledger, self._plan.home)
        tracker = Tracker(self._plan.tracking_uri, self._log.path, files=files, warn=self._warn)
        self._outcome.tracking = tracker.close()
        return self._unless_failed("FINISHED" if self._outcome.champion else "FAILED")

    def run(self, *, address: str | None, verbose: bool) -> SweepOutcome:
        """The whole sweep, or the rest of it."""
        state: State = "FAILED"
        with self._interrupt:
            try:
                with ThreadPoolExecutor(1) as pool:
                    # The base model is scored on the validation images while Ray starts: both take seconds.
                    self._materials = pool.submit(self._load_materials)
                    if self._has_trials_left():
                        with ray_session(address, verbose=verbose):
                            slots = self._count_slots()
                            self._begin()
                            self._search(slots, verbose=verbose)
                    else:
                        self._begin()
                state = self._conclude()
            except KeyboardInterrupt:
                if self._tracker is None:
                    raise
                self._outcome.interrupted, state = True, "KILLED"
            finally:
                self._end(state)
        return self._unless_failed(state)

    def _has_trials_left(self) -> bool:
        config, ledger = self._plan.config, self._outcome.ledger
        if ledger.end is not None and ledger.end.state == "FINISHED":
            return False
        if trials_left(ledger, config):
            return True
        return config.final.active and bool(self._finals.repeats() or self._finals.twins())

    def _begin(self) -> None:
        """From here on there is something to record. Bad data or weights stop before it."""
        plan, ledger, materials = self._plan, self._outcome.ledger, self._materials.result()
        check_weights(ledger, materials.base_sha256)
        drop_stale_bundles(plan.folder, ledger)
        started = sweep_started(
            plan,
            zero_shot=materials.zero_shot,
            base_sha256=materials.base_sha256,
            resumed=not self._is_new,
        )
        self._tell(started)
        self._tracker = Tracker(plan.tracking_uri, self._log.path, files=self._files, warn=self._warn)

    def _end(self, state: State) -> None:
        if self._tracker is None:
            if self._is_new:
                discard(self._plan)
            return
        ended = summarise(self._outcome, state)
        try:
            self._tell(ended)
        except OSError as error:  # a full disk; what brought us here is the error to show
            self._warn(f"{self._log.path}: the end of the sweep could not be written: {error}")
        if state == "FAILED" and not is_over(self._outcome.ledger):
            self._warn(f"Go on with: {resume_command(self._outcome)}")
        self._outcome.tracking = self._tracker.close()

    def _count_slots(self) -> int:
        resources, nodes = self._plan.config.resources, cluster_nodes()
        check_store(self._plan.tracking_uri, nodes=len(nodes))
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

    def _tell(self, event: Event) -> None:
        """To the ledger last: it is the only one that cannot fail, and must not know more than the log."""
        told: list[Listener] = [*self._listeners, self._outcome.ledger]
        for listener in told:
            listener(event)

    def _search(self, slots: int, *, verbose: bool) -> None:
        from tune.study import quiet, repeat, search

        quiet(verbose)
        config, ledger = self._plan.config, self._outcome.ledger
        trials = trials_left(ledger, config) + config.final.trials
        stop = self._interrupt.was_asked
        with self._interrupt.only_asked():
            with self._terminal(slots, trials) as terminal:
                told: list[Listener] = [*self._listeners, terminal]
                cut_off = search(self._plan, slots=slots, ledger=ledger, listeners=told, stop=stop)
                if config.final.active and not cut_off:
                    cut_off = repeat(self._plan, self._finals, slots=slots, ledger=ledger, listeners=told, stop=stop)
        self._outcome.interrupted = cut_off

    def _terminal(self, slots: int, trials: int) -> Terminal:
        train, ledger = self._plan.config.run.train, self._outcome.ledger
        best, zero_shot = ledger.champion(), self._materials.result().zero_shot
        return Terminal(
            self._console,
            trials=trials,
            epochs=train.epochs,
            slots=slots,
            zero_shot=zero_shot.get(f"val/{train.select}/dice"),
            best=(best.score, best.trial_id) if best else None,
        )

    def _choose_champion(self) -> None:
        outcome = self._outcome
        if self._plan.config.final.active:
            outcome.finals = self._finals.result()
        outcome.champion = outcome.finals.challenger if outcome.finals else outcome.ledger.champion()
        if outcome.champion is not None:
            outcome.seed = outcome.champion.values.get(SEED, outcome.seed)

    def _conclude(self) -> State:
        """Champion, test score and promotion; the state of the sweep."""
        outcome = self._outcome
        self._choose_champion()
        if outcome.champion is not None:
            assert self._tracker is not None
            outcome.bundle = self._files.bundle(outcome.champion.trial_id)
            crown(outcome, self._plan, self._materials.result(), self._tracker, self._console, self._tell)
        if outcome.interrupted:
            return "KILLED"
        return "FAILED" if outcome.champion is None else "FINISHED"

    def _unless_failed(self, state: State) -> SweepOutcome:
        if state == "FAILED":
            raise SweepFailed(
                f"every trial of {self._plan.sweep_id} failed; the first said: {self._outcome.first_error} "
                f"(all: {self._log.path})"
            )
        return self._outcome

    def _warn(self, text: str) -> None:
        self._console.print(f"[yellow]{text}[/]", soft_wrap=True, highlight=False)

    def _notice(self) -> None:
        self._warn("Stopping: what was found is kept and recorded. Ctrl-C again ends everything at once.")

    def _last_words(self) -> None:
        self._console.show_cursor(True)
        self._warn(f"Killed. Go on with: {resume_command(self._outcome)}")
