"""The state of a sweep as its events tell it: every trial, its epochs, its end, and who leads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tune.events import OBJECTIVE, EpochReported, Event, TrialEnded, TrialStarted


@dataclass
class TrialRecord:
    """One trial."""

    trial_id: str
    values: Mapping[str, Any]
    epochs: list[EpochReported] = field(default_factory=list)
    end: TrialEnded | None = None

    @property
    def best(self) -> EpochReported | None:
        """The epoch whose state is the trial's result: highest objective, the first of equals."""
        finite = [epoch for epoch in self.epochs if math.isfinite(epoch.values.get(OBJECTIVE, math.nan))]
        return max(finite, key=lambda epoch: epoch.values[OBJECTIVE], default=None)

    @property
    def score(self) -> float:
        """Objective of the best epoch; minus infinity without one."""
        best = self.best
        return best.values[OBJECTIVE] if best else -math.inf


class Ledger:
    """All trials of a sweep."""

    def __init__(self) -> None:
        self.trials: dict[str, TrialRecord] = {}

    def __call__(self, event: Event) -> None:
        """Takes in one event. A row of an epoch already reported (after a restart) replaces the old one."""
        if isinstance(event, TrialStarted):
            self.trials.setdefault(event.trial_id, TrialRecord(event.trial_id, dict(event.values)))
            return
        trial = self.trials[event.trial_id]
        if isinstance(event, EpochReported):
            trial.epochs = [epoch for epoch in trial.epochs if epoch.epoch != event.epoch] + [event]
        elif isinstance(event, TrialEnded):
            trial.end = event

    def ranking(self) -> list[TrialRecord]:
        """Trials by score, best first; trials without a score last."""
        return sorted(self.trials.values(), key=lambda trial: (-trial.score, trial.trial_id))

    def champion(self) -> TrialRecord | None:
        """The trial with the highest objective among those that did not fail."""
        sound = [trial for trial in self.ranking() if trial.best and not (trial.end and trial.end.state == "FAILED")]
        return sound[0] if sound else None
