"""What every slot of a search is told, and what Tune is told by a slot; imports neither torch nor Ray Train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infosam.config import RunConfig
from tune.events import OBJECTIVE
from tune.space import configured
from tune.worker import Failure, Job, Message, WorkerSetup

CHECKPOINTS = "checkpoints"
"""Folder of its states in that of a trial."""
SWEEP = "sweep"
"""Key of a suggestion that names the sweep of a trial."""


@dataclass(frozen=True, kw_only=True)
class SweepJobs:
    """What the trials of one sweep share."""

    folder: str  # of the sweep, shared by all nodes
    run: Mapping[str, Any]  # RunConfig before the searched values, as JSON
    data: str  # folder of the images
    mirror: str | None = None  # address of what it keeps outside its folder


@dataclass(frozen=True, kw_only=True)
class SlotPlan:
    """What every slot is told of the sweeps that share it."""

    folder: str  # where Ray Train keeps its own, shared by all nodes
    sweeps: Mapping[str, SweepJobs]
    worker: WorkerSetup
    workers: int  # training processes of one trial
    bundle: Mapping[str, float]  # resources of one worker
    step_timeout_s: float
    max_failures: int

    def job(self, suggestion: Mapping[str, Any]) -> Job:
        """The trial a searcher suggested, with keys `sweep`, `trial` (its id there) and `values` (its point of the
        space)."""
        sweep, trial_id = self.sweeps[suggestion[SWEEP]], suggestion["trial"]
        run = configured(RunConfig.model_validate(sweep.run), suggestion["values"])
        return Job(
            trial_id=trial_id,
            config=run.model_dump(mode="json"),
            checkpoint_dir=str(Path(sweep.folder) / "trials" / trial_id / CHECKPOINTS),
            data=sweep.data,
            mirror=f"{sweep.mirror}/{trial_id}" if sweep.mirror else None,
        )


def result_of(message: Message) -> dict[str, Any]:
    """A message of a trial as a result for Tune: searchers and schedulers read `epoch` and the objective, callbacks
    the whole message."""
    if isinstance(message, Failure):
        return {"report": message, "done": True}
    return {
        "report": message,
        "epoch": message.epoch,
        "done": message.completed,
        OBJECTIVE: message.values[OBJECTIVE],
    }
