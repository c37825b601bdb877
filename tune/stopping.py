"""Ends that do not come from comparing trials: a trial on a plateau, and a sweep that has used up its budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

from ray import tune

from tune.config import BudgetConfig, SchedulerConfig
from tune.events import (
    OBJECTIVE,
    EpochReported,
    Event,
    StopReason,
    SweepStarted,
    TrialEnded,
    TrialEvent,
    TrialStarted,
)
from tune.ledger import Ledger
from tune.trial_ids import role_of

HOUR_S = 3600.0


class Budget:
    """What a sweep has spent, as its events tell; call it with each, those of earlier drivers included.

    Args:
        config: what may be spent.
        gpus: reserved by one trial.
        clock: seconds since the epoch.
    """

    def __init__(self, config: BudgetConfig, *, gpus: float, clock: Callable[[], float] = time.time) -> None:
        self._config, self._gpus, self._clock = config, gpus, clock
        self._running: dict[str, float] = {}  # trial -> since when
        self._since: float | None = None  # first trial of this driver
        self._last = 0.0
        self._wall_s = 0.0  # of earlier drivers
        self._trial_s = 0.0  # of runs that are over
        self._reached: str | None = None

    def replay(self, events: Iterable[Event]) -> Self:
        """Takes in the events of earlier drivers."""
        for event in events:
            self(event)
        return self

    def __call__(self, event: Event) -> None:
        """Takes in one event."""
        if isinstance(event, SweepStarted):
            self._close_driver()
        elif isinstance(event, TrialStarted):
            self._since = event.at if self._since is None else self._since
            self._running.setdefault(event.trial_id, event.at)
        elif isinstance(event, EpochReported) and role_of(event.trial_id) == "trial":
            self.look_at(event.values.get(OBJECTIVE))
        elif isinstance(event, TrialEnded) and event.trial_id in self._running:
            self._trial_s += event.at - self._running.pop(event.trial_id)
        if isinstance(event, TrialEvent):
            self._last = event.at

    def look_at(self, score: float | None) -> None:
        """The validation Dice of an epoch, which may be all that was wanted."""
        target = self._config.target
        if self._reached is None and target is not None and score is not None and score >= target:
            self._reached = f"budget.target = {target:g} is reached: {OBJECTIVE} {score:.4f}"

    @property
    def idle(self) -> bool:
        """Whether no trial runs."""
        return not self._running

    def spent(self) -> str | None:
        """Which budget is used up, for people; None while there is some left of each."""
        if self._reached:
            return self._reached
        used = {"hours": self._hours(), "gpu_hours": self._gpu_hours()}
        for name, amount in used.items():
            bound = getattr(self._config, name)
            if bound is not None and amount >= bound:
                return f"budget.{name} = {bound:g} is used up"
        return None

    def _hours(self) -> float:
        now = 0.0 if self._since is None else self._clock() - self._since
        return (self._wall_s + now) / HOUR_S

    def _gpu_hours(self) -> float:
        running = sum(self._clock() - since for since in self._running.values())
        return (self._trial_s + running) * self._gpus / HOUR_S

    def _close_driver(self) -> None:
        """An earlier driver is gone since its last event."""
        if self._since is not None:
            self._wall_s += self._last - self._since
        self._trial_s += sum(self._last - since for since in self._running.values())
        self._running, self._since = {}, None


class Plateau:
    """Whether a trial has stopped rising: no gain of `plateau_delta` over `plateau_epochs` epochs.

    Args:
        config: both settings.
        ledger: of earlier drivers, so that a trial that goes on is judged by all its epochs.
    """

    def __init__(self, config: SchedulerConfig, ledger: Ledger) -> None:
        self._patience, self._delta = config.plateau_epochs, config.plateau_delta
        self._progress: dict[str, tuple[float, int]] = {}  # trial -> last score that counted as a gain, and its epoch
        for trial in ledger.trials.values():
            for epoch in trial.epochs if trial.is_open else []:
                self.stops(trial.trial_id, epoch.epoch, epoch.values[OBJECTIVE])

    def stops(self, trial_id: str, epoch: int, score: float) -> bool:
        """Takes in an epoch of a trial; True if it was one too many."""
        if self._patience is None:
            return False
        best, at = self._progress.get(trial_id, (-math.inf, epoch))
        if score > best and score >= best + self._delta:
            self._progress[trial_id] = (score, epoch)
            return False
        return epoch - at >= self._patience


class Stopping(tune.Stopper):
    """Tune's view of both, and of a user who wants the search to end.

    Trials end at their next report and are recorded in full; Tune itself is only told to end when none is under way.

    Args:
        budget: a listener of the sweep's events.
        asked: whether the user wants the end, at once.
    """

    def __init__(self, budget: Budget, plateau: Plateau, asked: Callable[[], bool]) -> None:
        self._budget, self._plateau, self._asked = budget, plateau, asked
        self._reasons: dict[str, StopReason] = {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends with this report; `trial_id` is Tune's."""
        epoch, score, name = result.get("epoch"), result.get(OBJECTIVE), result["config"]["trial"]
        self._budget.look_at(score)
        if self._budget.spent():
            self._reasons[name] = "budget"
        elif epoch is not None and score is not None and self._plateau.stops(name, epoch, score):
            self._reasons[name] = "plateau"
        return name in self._reasons

    def stop_all(self) -> bool:
        """Whether Tune should end, with trials that wait for a place."""
        return self._asked() or (self._budget.idle and self._budget.spent() is not None)

    def reason(self, trial_id: str) -> StopReason:
        """Why a trial, by our id, was stopped before its last epoch."""
        return self._reasons.get(trial_id, "early_stopped")

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a pickled copy of its settings, which nobody asks."""
        return {}
