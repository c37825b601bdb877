"""What a person sees while a sweep runs: one line per epoch, and a bar where the output is a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tune.events import OBJECTIVE, EpochReported, Event, TrialEnded, TrialRetried, TrialStarted
from tune.space import Point

STYLES = {"completed": "green", "early_stopped": "yellow", "user": "yellow", "error": "red"}


class Terminal:
    """Listens to a sweep and prints it. A context manager: the bar lives inside."""

    def __init__(self, console: Console, *, trials: int, epochs: int) -> None:
        self._epochs = epochs
        self._best: tuple[float, str] | None = None
        self._progress = Progress(
            TextColumn("[bold]trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting workers", total=trials)
        self._console = console

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(text, soft_wrap=True, highlight=False)

    def __call__(self, event: Event) -> None:
        """Prints one event."""
        if isinstance(event, TrialStarted):
            self.say(f"[bold]{event.trial_id}[/] starts: {describe_point(event.values)}")
        elif isinstance(event, EpochReported):
            self._epoch(event)
        elif isinstance(event, TrialRetried):
            self.say(f"[bold]{event.trial_id}[/] [yellow]lost its process and goes on in another[/]: {event.error}")
        elif isinstance(event, TrialEnded):
            why = event.reason.replace("_", " ") + (f": {event.error}" if event.error else "")
            self.say(f"[bold]{event.trial_id}[/] [{STYLES[event.reason]}]{why}[/]")
            self._progress.advance(self._task)

    def _epoch(self, event: EpochReported) -> None:
        value = event.values[OBJECTIVE]
        if self._best is None or value > self._best[0]:
            self._best = (value, event.trial_id)
        best = f"best {self._best[0]:.3f} ({self._best[1]})"
        self.say(f"[bold]{event.trial_id}[/] epoch {event.epoch}/{self._epochs}  val dice {value:.3f}  [dim]{best}[/]")
        self._progress.update(self._task, description=best)


def describe_point(values: Point) -> str:
    """Searched values on one line: `lora, rank 4, lr 0.0012, ...`."""
    return ", ".join(describe_value(path, value) for path, value in values.items())


def describe_value(path: str, value: object) -> str:
    """One searched value with the last part of its path."""
    name = path.rsplit(".", 1)[-1]
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if name == "kind" else f"{name} {text}"
