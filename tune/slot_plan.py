"""What every slot of a sweep is told, and what Tune is told by a slot; imports neither torch nor Ray Train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infosam.config import RunConfig
from tune.events import OBJECTIVE
from tune.space import configured
from tune.worker import Failure, Job, Message, WorkerSetup


@dataclass(frozen=True, kw_only=True)
class SlotPlan:
    """What every slot of a sweep is told."""

    folder: str  # of the sweep, shared by all nodes
    run: Mapping[str, Any]  # RunConfig before the searched values, as JSON
    worker: WorkerSetup
    workers: int  # training processes of one trial
    bundle: Mapping[str, float]  # resources of one worker
    step_timeout_s: float
    max_failures: int

    def job(self, suggestion: Mapping[str, Any]) -> Job:
        """The trial a searcher suggested, with keys `trial` (its id) and `values` (its point of the space)."""
        run = configured(RunConfig.model_validate(self.run), suggestion["values"])
        trial_id = suggestion["trial"]
        return Job(
            trial_id=trial_id,
            config=run.model_dump(mode="json"),
            checkpoint_dir=str(Path(self.folder) / "trials" / trial_id / "checkpoints"),
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
