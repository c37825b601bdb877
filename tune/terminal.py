"""What a person sees while a sweep runs: a live table of its slots in a terminal, plain lines in a file or pipe."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tune.events import OBJECTIVE, EpochReported, Event, Listener, TrialEnded, TrialEvent, TrialRetried, TrialStarted
from tune.space import Point

STYLES = {
    "completed": "green",
    "early_stopped": "yellow",
    "plateau": "yellow",
    "budget": "yellow",
    "user": "yellow",
    "error": "red",
}

REFRESHES_PER_S = 2


@dataclass
class Standing:
    """How a domain stands."""

    zero_shot: float | None = None  # objective of the base model before any training, if known
    best: tuple[float, str] | None = None  # objective and id of the best trial so far

    def describe(self) -> str:
        """The best and its gain."""
        if self.best is None:
            return "no result yet"
        value, trial_id = self.best
        gain = "" if self.zero_shot is None else f", {value - self.zero_shot:+.3f} over zero-shot"
        return f"best {value:.3f} ({trial_id}{gain})"


@dataclass
class _Slot:
    """What one slot is doing."""

    domain: str
    trial_id: str
    values: Point
    since: float
    epoch: int = 0
    score: float | None = None
    is_restarting: bool = False


class Terminal:
    """Listens to a sweep, or to one for each domain, and shows them. A context manager: the table lives inside.

    Args:
        trials: how many will run, of all domains.
        epochs: of a trial that runs to its end.
        slots: trials at a time.
        standings: of each domain when it begins; a sweep that goes on has a best trial.
        clock: seconds.
    """

    def __init__(
        self,
        console: Console,
        *,
        trials: int,
        epochs: int,
        slots: int = 1,
        standings: Mapping[str, Standing],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._trials = trials
        self._epochs = epochs
        self._standings = dict(standings)
        self._clock = clock
        self._slots: list[_Slot | None] = [None] * slots
        self._ends: Counter[str] = Counter()
        self._first_start: float | None = None
        self._changing = threading.RLock()  # the table is drawn by a thread of its own
        self._live = Live(
            console=console, get_renderable=self.table, refresh_per_second=REFRESHES_PER_S, transient=True
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def of(self, domain: str) -> Listener:
        """The listener for the sweep of a domain."""
        return lambda event: self._take(domain, event)

    def _take(self, domain: str, event: Event) -> None:
        with self._changing:
            if isinstance(event, TrialStarted):
                self._start(domain, event)
            elif isinstance(event, EpochReported):
                self._report(domain, event)
            elif isinstance(event, TrialRetried):
                self._retry(domain, event)
            elif isinstance(event, TrialEnded):
                self._end(domain, event)

    def table(self) -> RenderableType:
        """Every slot, and one line on the whole sweep."""
        with self._changing:
            table = Table("slot", "trial", "epoch", "val dice", "time", "searched", box=None, pad_edge=False)
            for number, slot in enumerate(self._slots):
                table.add_row(str(number), *self._row(slot))
            return Group(table, Text.from_markup(self.summary()))

    def summary(self) -> str:
        """Trials done, running, stopped and failed; the best and its gain; the time that is left. Markup."""
        done = sum(self._ends.values())
        running = sum(slot is not None for slot in self._slots)
        stopped = done - self._ends["completed"] - self._ends["error"]
        parts = [f"[bold]{done} of {self._trials} trials done[/]", f"{running} running"]
        parts += [f"[yellow]{stopped} stopped[/]"] if stopped else []
        parts += [f"[red]{self._ends['error']} failed[/]"] if self._ends["error"] else []
        parts += [self._prefix(domain) + one.describe() for domain, one in self._standings.items() if one.best]
        if self._first_start is None:
            parts.append("starting workers")
        elif 0 < done < self._trials:
            left = (self._clock() - self._first_start) / done * (self._trials - done)
            parts.append(f"about {describe_seconds(left)} left")
        return ", ".join(parts)

    def _start(self, domain: str, event: TrialStarted) -> None:
        self._first_start = self._clock() if self._first_start is None else self._first_start
        slot = _Slot(domain, event.trial_id, event.values, self._clock())
        if None in self._slots:
            self._slots[self._slots.index(None)] = slot
        else:
            self._slots.append(slot)
        self._say(f"{self._label(domain, event)} starts: {describe_point(event.values)}", is_in_table=True)

    def _report(self, domain: str, event: EpochReported) -> None:
        value, standing = event.values[OBJECTIVE], self._standings[domain]
        if standing.best is None or value > standing.best[0]:
            standing.best = (value, event.trial_id)
        if slot := self._slot_of(domain, event):
            slot.epoch, slot.score, slot.is_restarting = event.epoch, value, False
        self._say(
            f"{self._label(domain, event)} epoch {event.epoch}/{self._epochs}  val dice {value:.3f}  "
            f"[dim]{standing.describe()}[/]",
            is_in_table=True,
        )

    def _retry(self, domain: str, event: TrialRetried) -> None:
        if slot := self._slot_of(domain, event):
            slot.is_restarting = True
        label = self._label(domain, event)
        self._say(f"{label} [yellow]lost its process and goes on in another[/]: {escape(event.error)}")

    def _end(self, domain: str, event: TrialEnded) -> None:
        self._ends[event.reason] += 1
        slot = self._slot_of(domain, event)
        self._slots = [None if one is slot else one for one in self._slots]
        score = f"  val dice {slot.score:.3f} after epoch {slot.epoch}" if slot and slot.score is not None else ""
        why = event.reason.replace("_", " ") + (f": {escape(event.error)}" if event.error else "")
        self._say(f"{self._label(domain, event)} [{STYLES[event.reason]}]{why}[/]{score}")

    def _slot_of(self, domain: str, event: TrialEvent) -> _Slot | None:
        wanted = (domain, event.trial_id)
        return next((slot for slot in self._slots if slot and (slot.domain, slot.trial_id) == wanted), None)

    def _label(self, domain: str, event: TrialEvent) -> str:
        return f"[bold]{self._prefix(domain)}{event.trial_id}[/]"

    def _prefix(self, domain: str) -> str:
        """Trials have the same names in all domains."""
        return f"{domain} " if len(self._standings) > 1 else ""

    def _row(self, slot: _Slot | None) -> list[str]:
        if slot is None:
            return ["[dim]free[/]"]
        epoch = "[yellow]restarting[/]" if slot.is_restarting else f"{slot.epoch}/{self._epochs}"
        score = "" if slot.score is None else f"{slot.score:.3f}"
        name, spent = self._prefix(slot.domain) + slot.trial_id, describe_seconds(self._clock() - slot.since)
        return [name, epoch, score, spent, describe_point(slot.values)]

    def _say(self, text: str, *, is_in_table: bool = False) -> None:
        """Prints a line, above the table where there is one; what the table shows needs none."""
        if not (is_in_table and self._console.is_terminal):
            self._console.print(text, soft_wrap=True, highlight=False)


def describe_seconds(seconds: float) -> str:
    """A duration for people: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def describe_point(values: Point) -> str:
    """Searched values on one line: `lora, rank 4, lr 0.0012, ...`."""
    return ", ".join(describe_value(path, value) for path, value in values.items())


def describe_value(path: str, value: object) -> str:
    """One searched value with the last part of its path."""
    name = path.rsplit(".", 1)[-1]
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if name == "kind" else f"{name} {text}"
