"""What happens in a sweep, as plain facts in the order they happened; terminal, ledger, log and tracker listen to them.

Times are seconds since the epoch, taken where the event was seen, so that a late reader can keep them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

OBJECTIVE = "val/dice"
"""The metric a sweep maximises: validation Dice under the prompt `run.train.select` names."""

State = Literal["FINISHED", "KILLED", "FAILED"]
StopReason = Literal["completed", "early_stopped", "user", "error"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a trial."""

    trial_id: str
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, kw_only=True)
class TrialStarted(Event):
    """A trial got a slot."""

    values: Mapping[str, Any]  # the searched settings by dotted path


@dataclass(frozen=True, kw_only=True)
class TrialRetried(Event):
    """The process or node of a trial died; it will go on from its last checkpoint."""

    error: str


@dataclass(frozen=True, kw_only=True)
class EpochReported(Event):
    """A trial finished an epoch."""

    epoch: int
    values: Mapping[str, float]
    checkpoint: str | None
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class TrialEnded(Event):
    """A trial will report no more."""

    state: State
    reason: StopReason
    error: str | None = None  # last line
    trace: str | None = None  # in full


Listener = Callable[[Event], None]


class EventLog:
    """Appends each event as one JSON line, flushed, to a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        """Writes one event."""
        line = {"event": type(event).__name__, **dataclasses.asdict(event)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
