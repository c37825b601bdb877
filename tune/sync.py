"""`infosam sync`: brings any MLflow store, also an empty one, to the state of a sweep's log.

Every run is compared with the log, whatever was written before. If the driver is dead, what its log leaves open is
closed, so that nothing is left running; `infosam sweep --resume` opens it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from infosam.errors import UserError
from tune.console import wide_console
from tune.event_log import NAME, is_written, read_events
from tune.events import SweepEnded
from tune.home import Home, find_home
from tune.ledger import Ledger
from tune.note import unfinished_note
from tune.position import without_password
from tune.resources import environment
from tune.resume import find_sweep, reopen
from tune.tracking import CLIENT_SETTINGS, LogFollower
from tune.trial_files import SweepFiles
from tune.worker import training_entry


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """What a store holds of a sweep afterwards."""

    uri: str
    states: Mapping[str, int]  # trials by state
    alive: bool  # a driver still writes the log
    refusals: Sequence[str]  # records the store will never take, in its words


class StoredFiles:
    """Files of the trials of a sweep without its driver: those that lie there, else made from the checkpoints."""

    def __init__(self, folder: Path, ledger: Ledger, home: Home) -> None:
        self._folder = folder
        self._ledger = ledger
        self._home = home

    def bundle(self, trial_id: str) -> Path | None:
        """As `tune.mlflow_writer.TrialFiles`. Raises UserError if it must be made and the data or weights are gone."""
        made = self._folder / "trials" / trial_id / "bundle"
        best = self._ledger.trials[trial_id].best
        if made.is_dir() or best is None or best.checkpoint is None:
            return made if made.is_dir() else None
        return self._maker.bundle(trial_id)

    def images(self, trial_id: str) -> Sequence[Path]:
        """As `bundle`."""
        made = sorted((self._folder / "trials" / trial_id / "images").glob("*.png"))
        if made or self.bundle(trial_id) is None:
            return made
        return self._maker.images(trial_id)

    @cached_property
    def _maker(self) -> SweepFiles:
        plan = reopen(self._folder, self._ledger, self._home)

        @cache
        def materials() -> Any:
            entry = training_entry(plan.training)
            return entry.load_materials(plan.config.run.model, plan.config.data, device="cpu", baselines=True)

        return SweepFiles(plan, self._ledger.trials, materials)


def sync(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A sweep, or the path of its folder.")],
    uri: Annotated[
        str | None, typer.Option("--uri", help="Tracking server or database; default: the sweep's own.")
    ] = None,
) -> None:
    """Bring an MLflow server to the state of a sweep's event log: after an outage, on another server, after a crash.

    Adds no run twice. If the sweep's driver died, its open runs are closed as KILLED with the reason `driver_died`;
    `infosam sweep --resume` opens them again.
    """
    home, console = find_home(), wide_console()
    result = sync_sweep(find_sweep(name, home), home, uri=uri)
    trials = ", ".join(f"{count} {state}" for state, count in sorted(result.states.items())) or "none"
    console.print(f"{without_password(result.uri)} has the whole log: trials {trials}", highlight=False, soft_wrap=True)
    if result.alive:
        console.print("The sweep runs: what it reports from now on is left to its own tracker", style="dim")
    if result.refusals:
        console.print(f"[red]{len(result.refusals)} records were refused[/]: {result.refusals[-1]}", soft_wrap=True)
        raise typer.Exit(1)


def sync_sweep(folder: Path, home: Home, *, uri: str | None = None) -> SyncResult:
    """Brings a store to the state of the log in a sweep's folder.

    Raises UserError if there is nothing to bring, the log is damaged, another process writes this sweep to this store,
    or nobody answers there."""
    from mlflow.exceptions import MlflowException

    log = folder / NAME
    ledger = Ledger.replay(log) if log.is_file() else Ledger()
    if ledger.sweep is None:
        raise UserError(f"{log}: holds no sweep, its driver ended before the first trial; there is nothing to bring")
    uri = uri or yaml.safe_load(ledger.sweep.settings)["tracking"]["uri"] or home.tracking_uri
    assert uri is not None
    alive = is_written(log)
    with environment(CLIENT_SETTINGS):
        try:
            follower = LogFollower(uri, log, StoredFiles(folder, ledger, home))
            try:
                follower.writer.doubt()
                follower.catch_up(*([] if alive or ledger.end else [_last_word(log, ledger)]))
            finally:
                follower.close()
        except (MlflowException, OSError) as error:
            raise UserError(
                f"{without_password(uri)}: cannot be brought to the state of {folder.name}: {error}; what is there is "
                "kept, and the same command goes on from it"
            ) from error
    open_state = "RUNNING" if alive else "KILLED"
    states = Counter(trial.end.state if trial.end else open_state for trial in ledger.trials.values())
    return SyncResult(uri=uri, states=states, alive=alive, refusals=follower.writer.refusals)


def _last_word(log: Path, ledger: Ledger) -> SweepEnded:
    """What a driver that died would have said."""
    last_seen = max(event.at for event, _ in read_events(log))
    return SweepEnded(state="KILLED", reason="driver_died", note=unfinished_note(ledger), at=last_seen)
