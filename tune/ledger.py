"""The state of a sweep as its events tell it: every trial, its epochs, its end, and who leads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tune.event_log import read_events
from tune.events import (
    OBJECTIVE,
    BudgetSpent,
    EpochReported,
    Event,
    PromotionDecided,
    ScoredOnTest,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialEvent,
    TrialRetried,
    TrialStarted,
)
from tune.trial_ids import role_of


@dataclass
class TrialRecord:
    """One trial."""

    trial_id: str
    values: Mapping[str, Any]
    epochs: list[EpochReported] = field(default_factory=list)
    retries: list[TrialRetried] = field(default_factory=list)
    end: TrialEnded | None = None

    @property
    def best(self) -> EpochReported | None:
        """The epoch whose state is the trial's result: highest objective, the first of equals."""
        finite = [epoch for epoch in self.epochs if math.isfinite(epoch.values.get(OBJECTIVE, math.nan))]
        return max(finite, key=lambda epoch: epoch.values[OBJECTIVE], default=None)

    @property
    def is_open(self) -> bool:
        """Whether it goes on if the sweep does: it runs, its driver died, or the user cut it off."""
        return self.end is None or self.end.reason == "user"

    @property
    def score(self) -> float:
        """Objective of the best epoch; minus infinity without one."""
        best = self.best
        return best.values[OBJECTIVE] if best else -math.inf


class Ledger:
    """A sweep and all its trials."""

    def __init__(self) -> None:
        self.sweep: SweepStarted | None = None
        self.began_at: float | None = None  # when the first of its drivers began
        self.test: ScoredOnTest | None = None
        self.promotion: PromotionDecided | None = None
        self.budget: str | None = None  # which one ended the search before all trials
        self.end: SweepEnded | None = None  # None while it runs, or if its driver died
        self.trials: dict[str, TrialRecord] = {}

    @classmethod
    def replay(cls, path: Path) -> Self:
        """The state that a log tells. Raises UserError for a damaged log."""
        ledger = cls()
        for event, _ in read_events(path):
            ledger(event)
        return ledger

    @property
    def mark(self) -> str | None:
        """What tells the sweep from others of its name; None before it began."""
        return None if self.began_at is None else repr(self.began_at)

    def __call__(self, event: Event) -> None:
        """Takes in one event. A row of an epoch already reported (after a restart) replaces the old one."""
        if isinstance(event, SweepStarted):
            self.sweep, self.end = event, None
            self.began_at = event.at if self.began_at is None else self.began_at
        elif isinstance(event, SweepEnded):
            self.end = event
        elif isinstance(event, ScoredOnTest):
            self.test = event
        elif isinstance(event, BudgetSpent):
            self.budget = event.what
        elif isinstance(event, PromotionDecided):
            self.promotion = event
        elif isinstance(event, TrialStarted):
            trial = self.trials.setdefault(event.trial_id, TrialRecord(event.trial_id, dict(event.values)))
            trial.end = None
        elif isinstance(event, TrialEvent):
            self._take(self.trials[event.trial_id], event)

    def _take(self, trial: TrialRecord, event: TrialEvent) -> None:
        if isinstance(event, EpochReported):
            trial.epochs = [epoch for epoch in trial.epochs if epoch.epoch != event.epoch] + [event]
        elif isinstance(event, TrialRetried):
            trial.retries.append(event)
        elif isinstance(event, TrialEnded):
            trial.end = event

    def ranking(self) -> list[TrialRecord]:
        """Trials of the search by score, best first; trials without a score last."""
        searched = [trial for trial in self.trials.values() if role_of(trial.trial_id) == "trial"]
        return sorted(searched, key=lambda trial: (-trial.score, trial.trial_id))

    def contenders(self) -> list[TrialRecord]:
        """Those of the ranking that have a score and did not fail."""
        return [trial for trial in self.ranking() if trial.best and not (trial.end and trial.end.state == "FAILED")]

    def champion(self) -> TrialRecord | None:
        """The trial of the search with the highest objective among those that did not fail."""
        return next(iter(self.contenders()), None)
