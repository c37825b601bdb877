"""Sweeps from their file to their champions, or on from where their driver died. Whatever happens on the way, no run is
left open, Ray is stopped, and the event logs say where to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tune.config import SweepConfig
from tune.data_check import check_data
from tune.event_log import NAME, EventLog
from tune.fetched import fetch_all
from tune.group import Group, find_group, make_group
from tune.home import Home
from tune.interrupt import Interrupt
from tune.ledger import Ledger
from tune.plan import TRAINING, discard
from tune.preflight import check_cluster
from tune.resources import SETTINGS, Slots, environment, ray_session
from tune.results import SweepOutcome, resume_command
from tune.resume import reopen
from tune.sweep_run import SweepRun
from tune.terminal import Terminal
from tune.tracking import CLIENT_SETTINGS


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
    """As `run_sweeps` with one sweep; raises SweepFailed if every trial failed."""
    return _sole(run_sweeps([config], home=home, console=console, training=training, address=address, verbose=verbose))


def run_sweeps(
    configs: Sequence[SweepConfig],
    *,
    home: Home,
    console: Console,
    training: str = TRAINING,
    address: str | None = None,
    verbose: bool = False,
) -> list[SweepOutcome]:
    """Runs the sweeps of a file, one for each domain, on the same slots and returns what they found; prints progress,
    not the results. Outcomes of which every trial failed say so in `failure`.

    Args:
        training: module with the functions of `tune.worker.TrainingEntry`.
        address: of a Ray cluster; default: RAY_ADDRESS, else Ray is started on this machine for the sweeps.

    Raises UserError for bad data, weights or resources before any trial. After Ctrl-C it returns partial results."""
    with environment(SETTINGS | CLIENT_SETTINGS), contextlib.ExitStack() as stack:
        for config in configs:
            fetch_all(config.resources.fetch)
        group = make_group(configs, home, training)
        for plan in group.plans:
            for note in plan.notes:
                text = f"{plan.domain}: {note}" if len(group.plans) > 1 else note
                console.print(text, soft_wrap=True, highlight=False)
        logs = [stack.enter_context(contextlib.closing(EventLog(plan.folder / NAME))) for plan in group.plans]
        driver = _Driver(group, logs, [Ledger() for _ in logs], console, unchecked=[config.data for config in configs])
        return driver.run(address=address, verbose=verbose)


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
    """As `resume_sweeps` with a sweep's own name; raises SweepFailed if every trial failed."""
    return _sole(
        resume_sweeps(
            name,
            home=home,
            console=console,
            overrides=overrides,
            training=training,
            address=address,
            verbose=verbose,
        )
    )


def resume_sweeps(
    name: str,
    *,
    home: Home,
    console: Console,
    overrides: Sequence[str] = (),
    training: str = TRAINING,
    address: str | None = None,
    verbose: bool = False,
) -> list[SweepOutcome]:
    """Goes on with a sweep, or with all of a group, whose driver ended, however it did; those that are over only give
    their result.

    Args: name: of the sweep or group, or the path of its folder; overrides: see `tune.resume.reopen`; the rest as
        `run_sweeps`.

    Raises UserError for a sweep that is not there, runs, or has other data or weights by now; else as `run_sweeps`."""
    folder, members = find_group(name, home)
    with environment(SETTINGS | CLIENT_SETTINGS), contextlib.ExitStack() as stack:
        logs = [stack.enter_context(contextlib.closing(EventLog(member / NAME))) for member in members]
        ledgers = [Ledger.replay(log.path) for log in logs]
        plans = [
            reopen(member, ledger, home, training=training, overrides=overrides)
            for member, ledger in zip(members, ledgers, strict=True)
        ]
        if folder not in members:
            plans = [replace(plan, group=folder.name) for plan in plans]
        group = Group(folder=folder, plans=plans)
        group.check()
        return _Driver(group, logs, ledgers, console).run(address=address, verbose=verbose)


def _sole(outcomes: Sequence[SweepOutcome]) -> SweepOutcome:
    (outcome,) = outcomes
    if outcome.failure:
        raise SweepFailed(outcome.failure)
    return outcome


class _Driver:
    """Takes the sweeps of a group through one Ray session, one search and one Ctrl-C.

    Args:
        unchecked: folders of images to look at before anything is recorded.
    """

    def __init__(
        self,
        group: Group,
        logs: Sequence[EventLog],
        ledgers: Sequence[Ledger],
        console: Console,
        *,
        unchecked: Sequence[Path] = (),
    ) -> None:
        self._group = group
        self._unchecked = unchecked
        self._console = console
        shared = group.folder if len(group.plans) > 1 else None
        self._runs = [
            SweepRun(plan, ledger, log, console, group=shared)
            for plan, ledger, log in zip(group.plans, ledgers, logs, strict=True)
        ]
        self._active = [run for run in self._runs if not run.is_over]
        self._interrupt = Interrupt(notice=self._notice, last_words=self._last_words)

    def run(self, *, address: str | None, verbose: bool) -> list[SweepOutcome]:
        """All sweeps, or the rest of them."""
        for run in self._runs:
            if run.is_over:
                run.recall()
        if self._active:
            with self._interrupt, contextlib.ExitStack() as ending:
                ending.callback(self._discard_unless_begun)
                for run in self._active:
                    ending.callback(run.end)
                try:
                    self._work(address, verbose=verbose)
                except KeyboardInterrupt:
                    if not self._has_begun():
                        raise
                    for run in self._active:
                        run.interrupt()
        return [run.outcome for run in self._runs]

    def _work(self, address: str | None, *, verbose: bool) -> None:
        searching = [run for run in self._active if run.has_trials_left]
        with ThreadPoolExecutor(1) as pool:
            # The base model is scored on the validation images while data is checked and Ray starts: all take seconds.
            for number, run in enumerate(self._active):
                run.load(pool, self._active[number - 1] if number else None)
            first = self._group.plans[0]
            for data in self._unchecked:
                check_data(data, first.config.run.model, first.home, self._console)
            if searching:
                with ray_session(address, verbose=verbose):
                    self._interrupt.listen()
                    slots = self._count_slots(searching)
                    self._begin()
                    with contextlib.ExitStack() as stores:
                        for run in searching:
                            stores.callback(run.make_stores().release)
                        self._search(searching, slots, verbose=verbose)
            else:
                self._begin()
        self._conclude()

    def _begin(self) -> None:
        """Bad data or weights of one domain stop before anything is recorded of any."""
        for run in self._active:
            run.check()
        for run in self._active:
            run.begin()

    def _search(self, searching: Sequence[SweepRun], slots: int, *, verbose: bool) -> None:
        from tune.study import quiet, repeat, search

        quiet(verbose)
        folder, stop = self._group.folder, self._interrupt.was_asked
        with self._interrupt.only_asked(), self._terminal(searching, slots) as terminal:
            parts = [run.part(terminal.of(run.plan.domain)) for run in searching]
            count = Slots(self._group.plans[0].config.resources, slots)
            cut_off = search(parts, folder=folder, slots=count, stop=stop)
            finals = [
                (part, run.finals) for part, run in zip(parts, searching, strict=True) if run.plan.config.final.active
            ]
            if not cut_off:
                cut_off = repeat(finals, folder=folder, slots=count, stop=stop)
        for run in self._active:
            run.outcome.interrupted = cut_off

    def _terminal(self, searching: Sequence[SweepRun], slots: int) -> Terminal:
        return Terminal(
            self._console,
            trials=sum(run.trials_left for run in searching),
            epochs=searching[0].plan.config.run.train.epochs,
            slots=slots,
            standings={run.plan.domain: run.standing for run in searching},
        )

    def _conclude(self) -> None:
        """Each on its own: what goes wrong with one champion does not take the others away."""
        errors: list[Exception] = []
        for run in self._active:
            try:
                run.conclude()
            except Exception as error:  # noqa: BLE001 - raised below, when the others had their turn
                errors.append(error)
        if errors:
            raise errors[0]

    def _count_slots(self, searching: Sequence[SweepRun]) -> int:
        return check_cluster(
            self._group.plans,
            [(run.plan.sweep_id, run.plan.config.search, run.outcome.ledger.mark) for run in searching],
            folders=self._group.folders,
            trials=sum(run.plan.config.search.trials for run in searching),
            warn=self._warn,
        )

    def _has_begun(self) -> bool:
        return any(run.has_begun for run in self._active)

    def _discard_unless_begun(self) -> None:
        if not self._has_begun() and all(run.is_new for run in self._runs):
            for folder in self._group.folders:
                discard(folder)

    def _warn(self, text: str) -> None:
        self._console.print(f"[yellow]{text}[/]", soft_wrap=True, highlight=False)

    def _notice(self) -> None:
        self._warn("Stopping: what was found is kept and recorded. Ctrl-C again ends everything at once.")

    def _last_words(self) -> None:
        self._console.show_cursor(True)
        self._warn(f"Killed. Go on with: {resume_command(self._runs[0].outcome)}")
