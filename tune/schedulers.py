"""Early stopping by comparison with other trials, on the epochs that are reported.

Rungs change nothing in a trial: its learning rate decays over all of `run.train.epochs`, whenever it is stopped. So at
an epoch all trials stand at the same point of the same schedule, a survivor ends with the decayed rate it needs, and a
stopped trial is the beginning of the full one, bit for bit. The price: early scores are those of a high rate."""

from __future__ import annotations

import bisect
import statistics
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from tune.config import SchedulerConfig
from tune.events import OBJECTIVE

EPOCH = "epoch"


def make_scheduler(config: SchedulerConfig, epochs: int) -> TrialScheduler:
    """The scheduler of a sweep whose trials have so many epochs."""
    if config.kind == "none":
        return FIFOScheduler()
    if config.kind == "median":
        return MedianScheduler(grace_epochs=config.grace_epochs, min_trials=config.min_trials)
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=OBJECTIVE,
        mode="max",
        max_t=epochs,
        grace_period=min(config.grace_epochs, epochs),
        reduction_factor=config.reduction,
    )


class MedianScheduler(FIFOScheduler):
    """Stops a trial whose best score so far is below the median of the other trials' running means at the same epoch.

    The rule of Vizier (Golovin et al. 2017, section 3.2). Ray's own pauses trials while there are too few to compare
    with, which a warm slot does not do, and reads all epochs of all trials at every report.

    Args:
        grace_epochs: no trial is stopped before.
        min_trials: others that must have reached the epoch.
    """

    def __init__(self, *, grace_epochs: int, min_trials: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._grace_epochs = grace_epochs
        self._min_trials = min_trials
        self._scores: dict[str, dict[int, float]] = {}
        self._means: dict[int, list[float]] = {}  # epoch -> running means of all trials there, sorted

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop or go on after an epoch. One that a restarted trial repeats has been answered."""
        epoch, score = result.get(EPOCH), result.get(OBJECTIVE)
        scores = self._scores.setdefault(trial.trial_id, {})
        if epoch is None or score is None or epoch in scores:
            return str(TrialScheduler.CONTINUE)
        scores[epoch] = score
        others = self._means.setdefault(epoch, [])
        compared = epoch >= self._grace_epochs and len(others) >= self._min_trials
        poor = compared and max(scores.values()) < _median(others)
        bisect.insort(others, statistics.fmean(scores.values()))
        return str(TrialScheduler.STOP if poor else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Its means stay, for others to be compared with."""
        self._scores.pop(trial.trial_id, None)


def _median(ordered: list[float]) -> float:
    """Of sorted values."""
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
