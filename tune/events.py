"""What happens in a sweep, as plain facts in the order they happened; terminal, ledger, log and tracker listen to them.

Times are seconds since the epoch, taken where the event was seen, so that a late reader can keep them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

OBJECTIVE = "val/dice"
"""The metric a sweep maximises: validation Dice under the prompt `run.train.select` names."""

State = Literal["FINISHED", "KILLED", "FAILED"]
StopReason = Literal["completed", "early_stopped", "plateau", "budget", "user", "error", "driver_died"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a sweep."""

    at: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class SweepStarted(Event):
    """A driver begins, or goes on with, a sweep. Everything a reader needs to show the sweep without its files."""

    sweep_id: str
    domain: str
    experiment: str
    settings: str  # the whole sweep as YAML
    params: Mapping[str, Any]  # fixed settings by dotted path
    tags: Mapping[str, str]  # of the parent and of every trial: data_digest, seed, protocol, commit
    data: Mapping[str, Any]  # of the dataset: name, digest, source, and counts by split
    zero_shot: Mapping[str, float]  # validation scores of the untuned model, as `val/box/dice`
    rungs: Sequence[int]  # epochs after which the scheduler compares trials, the last epoch included
    resumed: bool = False


@dataclass(frozen=True, kw_only=True)
class ScoredOnTest(Event):
    """The best trial was scored on the test images, which happens once in the life of a sweep."""

    trial_id: str


@dataclass(frozen=True, kw_only=True)
class PromotionDecided(Event):
    """The best trial became champion of the domain, or was refused."""

    trial_id: str
    promoted: bool
    model: str
    version: str | None
    reasons: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class SweepEnded(Event):
    """The driver is done. A resumed sweep starts again after it."""

    state: State
    reason: StopReason
    note: str  # Markdown
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Sequence[str] = ()  # relative to the folder of the log


@dataclass(frozen=True, kw_only=True)
class BudgetSpent(Event):
    """The search ended before all its trials, as its budget wanted."""

    what: str  # which budget, for people


@dataclass(frozen=True, kw_only=True)
class TrialEvent(Event):
    """Something that happened to a trial."""

    trial_id: str


@dataclass(frozen=True, kw_only=True)
class TrialStarted(TrialEvent):
    """A trial got a slot; once more if it goes on in a resumed sweep."""

    values: Mapping[str, Any]  # the searched settings by dotted path


@dataclass(frozen=True, kw_only=True)
class TrialRetried(TrialEvent):
    """The process or node of a trial died; it will go on from its last checkpoint."""

    error: str


@dataclass(frozen=True, kw_only=True)
class EpochReported(TrialEvent):
    """A trial finished an epoch."""

    epoch: int
    values: Mapping[str, float]
    checkpoint: str | None
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class TrialEnded(TrialEvent):
    """A trial will report no more."""

    state: State
    reason: StopReason
    error: str | None = None  # last line
    trace: str | None = None  # in full


Listener = Callable[[Event], None]
