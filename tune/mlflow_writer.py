"""Brings an MLflow store to the state that events tell: one parent run, one child run per trial. `tracking` retries.

The writer folds events into the wanted state of every run, and `RunStore` sends the difference. So any number of
events taken in at once cost one request per run, and an event taken in twice costs none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tune.events import EpochReported, Event, SweepEnded, SweepStarted, TrialEnded, TrialEvent, TrialStarted
from tune.ledger import Ledger, TrialRecord
from tune.mlflow_runs import (
    NAME_TAG,
    PARENT_TAG,
    dataset_inputs,
    epoch_metrics,
    metrics,
    milliseconds,
    sweep_marks,
    sweep_tags,
    trial_tags,
)
from tune.mlflow_store import Points, RunStore, StoredRun
from tune.results_table import write_results

if TYPE_CHECKING:
    from mlflow import MlflowClient

RESULTS = "results.parquet"
PARENT = ""
"""Stands for the parent run where children go by their trial's id."""
BUNDLE_TAG, IMAGES_TAG = "bundle_epoch", "images_epoch"
"""Tags that say of which epoch the run holds the bundle and the pictures."""
GRID_STEP = 0
"""Step of all pictures, whichever epoch was a trial's best, so that the trials' pictures stand side by side."""


class TrialFiles(Protocol):
    """Where the files of ended trials come from. May raise anything; the run is closed without them then."""

    def bundle(self, trial_id: str) -> Path | None:
        """Folder of a trial's best bundle, None if it has none."""

    def images(self, trial_id: str) -> Sequence[Path]:
        """Pictures of a completed trial on the sweep's few fixed validation images, same names in every trial."""


class MlflowWriter:
    """Writes one sweep. Not safe for several threads.

    Args:
        client: see `tune.tracking.new_client`.
        folder: of the sweep; files that events name lie there.
        artifacts: where a new experiment keeps files; None: where the server says.
        files: of ended trials.
        known: run ids by trial that an earlier writer to this store has left."""

    def __init__(
        self,
        client: MlflowClient,
        *,
        folder: Path,
        artifacts: Path | None,
        files: TrialFiles,
        known: Mapping[str, str] | None = None,
    ) -> None:
        self._client = client
        self._folder = folder
        self._artifacts = artifacts
        self._files = files
        self._ledger = Ledger()
        self._began_at: float | None = None
        self._epochs: dict[str, list[EpochReported]] = {}
        self._started_at: dict[str, float] = {}
        self._driver_of: dict[str, SweepStarted] = {}  # a resumed sweep may run other code
        self._dirty: dict[str, None] = {}  # in the order in which things happened
        self._runs = {key: StoredRun(run_id) for key, run_id in (known or {}).items()}
        self._searched = False
        self._store: RunStore | None = None
        self.settled = 0  # times that a run was brought to its wanted state

    @property
    def run_ids(self) -> dict[str, str]:
        """Run ids by trial, the parent's under PARENT."""
        return {key: run.run_id for key, run in dict(self._runs).items()}  # other threads may ask

    @property
    def refusals(self) -> list[str]:
        """What the server will never take, in its words."""
        return self._store.refusals if self._store else []

    @property
    def calls(self) -> int:
        """Requests that worked so far."""
        return self._store.calls if self._store else 0

    def take(self, event: Event, *, written: bool = False) -> None:
        """Takes in one event; `written`: an earlier writer has brought it to this store."""
        self._ledger(event)
        touched = [PARENT]
        if isinstance(event, SweepStarted):
            self._began_at = self._began_at or event.at
        elif isinstance(event, SweepEnded):
            touched += self._close_rest(event)
        elif isinstance(event, TrialEvent):
            touched = [event.trial_id]
            self._started_at.setdefault(event.trial_id, event.at)
            if isinstance(event, TrialStarted):
                self._driver_of[event.trial_id] = self._sweep
            if isinstance(event, EpochReported):
                self._epochs.setdefault(event.trial_id, []).append(event)
        if not written:
            self._dirty |= dict.fromkeys(touched)

    def write(self) -> None:
        """Brings everything taken in to the store. May be called again after it failed."""
        trials = [key for key in self._dirty if key != PARENT]
        if trials and PARENT not in self._runs:
            self._ready(PARENT, self._parent_tags(None), {}, self._began)
        for trial_id in trials:
            self._write_trial(self._ledger.trials[trial_id])
            self._settle(trial_id)
        if PARENT in self._dirty:  # last, so that a finished parent has all its children
            self._write_parent()
            self._settle(PARENT)

    def doubt(self) -> None:
        """Makes `write` compare every run with what is in the store, whatever was written before."""
        self._dirty = dict.fromkeys([PARENT, *self._ledger.trials])
        self._runs, self._searched = {}, False

    def _settle(self, key: str) -> None:
        del self._dirty[key]
        self.settled += 1

    def _close_rest(self, end: SweepEnded) -> list[str]:
        """Ends trials that the log leaves open; which."""
        rest = [trial_id for trial_id, trial in self._ledger.trials.items() if trial.end is None]
        reason = end.reason if end.reason == "driver_died" else "user"
        for trial_id in rest:
            self._ledger(TrialEnded(trial_id=trial_id, state="KILLED", reason=reason, at=end.at))
        return rest

    @property
    def _sweep(self) -> SweepStarted:
        assert self._ledger.sweep is not None, "a log begins with SweepStarted"
        return self._ledger.sweep

    @property
    def _began(self) -> float:
        return self._began_at or self._sweep.at

    def _parent_tags(self, end: SweepEnded | None) -> dict[str, str]:
        return {NAME_TAG: self._sweep.sweep_id, **sweep_tags(self._sweep, end)}

    def _write_parent(self) -> None:
        sweep, end = self._sweep, self._ledger.end
        tags = self._parent_tags(end)
        points: Points = {(0, milliseconds(end.at)): metrics(end.metrics, at=end.at, step=0)} if end else {}
        store, run = self._ready(PARENT, tags, points, self._began)
        with run.in_doubt():
            if not run.described:
                store.upload("log_text", run, sweep.settings, "sweep.yaml")
            store.describe(run, sweep.params, dataset_inputs(sweep, ("train", "val", "test")))
            if end is not None:
                table = write_results(self._ledger, self._epochs, self._folder / RESULTS)
                for file in (table, *(self._folder / name for name in end.files)):
                    store.upload("log_artifact", run, str(file))
            store.send(run, points, tags)
            store.set_status(run, end.state if end else None, end.at if end else None)

    def _write_trial(self, trial: TrialRecord) -> None:
        sweep, end = self._driver_of[trial.trial_id], trial.end
        tags = {PARENT_TAG: self._runs[PARENT].run_id, "trial_id": trial.trial_id, **trial_tags(sweep, trial)}
        points = {
            (epoch.epoch, milliseconds(epoch.at)): epoch_metrics(sweep, epoch)
            for epoch in self._epochs.get(trial.trial_id, ())
        }
        store, run = self._ready(trial.trial_id, tags, points, self._started_at[trial.trial_id])
        with run.in_doubt():
            store.describe(run, trial.values, dataset_inputs(sweep, ("train", "val")))
            if end is not None:
                tags |= self._send_files(store, run, trial)
            store.send(run, points, tags)
            store.set_status(run, end.state if end else None, end.at if end else None)

    def _ready(self, key: str, tags: Mapping[str, str], points: Points, at: float) -> tuple[RunStore, StoredRun]:
        """The run of a trial: remembered, found again by its tags, or new."""
        sweep = self._sweep
        marks = sweep_marks(sweep, self._began)
        if self._store is None:
            self._store = RunStore(self._client, sweep.experiment, self._artifacts)
        run = self._runs.get(key)
        if run is None and not self._searched:
            found = self._store.find(marks)
            self._runs |= {name: StoredRun(run_id) for name, run_id in found.items() if name not in self._runs}
            self._searched = True
            run = self._runs.get(key)
        if run is not None and run.doubtful and not self._store.look(run, points):
            run = None
        if run is None:
            self._searched = False  # if this fails, nobody knows whether the run was made
            run = self._runs[key] = self._store.create({**marks, **tags}, at=at)
            self._searched = True
        return self._store, run

    def _send_files(self, store: RunStore, run: StoredRun, trial: TrialRecord) -> dict[str, str]:
        """Trace, bundle and pictures of an ended trial; tags that say what is there."""
        end, best = trial.end, trial.best
        assert end is not None
        tags: dict[str, str] = {}
        if end.trace:
            store.upload("log_text", run, end.trace, "error.txt")
        if best is not None and run.tags.get(BUNDLE_TAG) != str(best.epoch):
            try:
                bundle = self._files.bundle(trial.trial_id)
            except Exception as error:  # noqa: BLE001 - a bundle that cannot be made must not keep the run open
                bundle, tags["bundle_error"] = None, str(error)
            if bundle is not None:
                store.upload("log_artifacts", run, str(bundle), "bundle")
                tags[BUNDLE_TAG] = str(best.epoch)
        if end.reason == "completed" and best is not None and run.tags.get(IMAGES_TAG) != str(best.epoch):
            try:
                images = self._files.images(trial.trial_id)
            except Exception as error:  # noqa: BLE001 - as above
                images, tags["images_error"] = (), str(error)
            if images:
                _send_images(store, run, images, at=end.at)
                tags[IMAGES_TAG] = str(best.epoch)
        return tags


def _send_images(store: RunStore, run: StoredRun, images: Sequence[Path], *, at: float) -> None:
    """Pictures for MLflow's image grid, which shows one step of all runs at a time, at first GRID_STEP."""
    from PIL import Image

    there = store.artifacts(run, "images")
    for file in images:
        key = f"validation/{file.stem}"
        mark = f"images/{key.replace('/', '~')}+step+{GRID_STEP}+"  # how MLflow names it; a copy of an earlier attempt
        if not any(path.startswith(mark) and "+compressed" in path for path in there):
            with Image.open(file) as image:
                store.upload("log_image", run, image, key=key, step=GRID_STEP, timestamp=milliseconds(at))
