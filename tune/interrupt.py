"""Ctrl-C while a sweep runs: the first one ends it cleanly, with everything recorded; the second one ends the process.

SIGTERM, which a cluster sends before it kills, counts like Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_KILLED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Listens to the signals while it is entered, which only the main thread can do; elsewhere it hears nothing.

    Args:
        notice: called in the handler of the first signal, to say what happens now.
        last_words: called before the process is ended by the second.
    """

    def __init__(self, *, notice: Callable[[], None], last_words: Callable[[], None]) -> None:
        self._asked = False
        self._notice = notice
        self._last_words = last_words
        self._patient = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            self.listen()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Again after `ray.init`, which puts a handler of its own in our place: one that ends the process."""
        for number in self._before:
            signal.signal(number, self._hear)

    def was_asked(self) -> bool:
        """Whether a signal came."""
        return self._asked

    @contextlib.contextmanager
    def only_asked(self) -> Iterator[None]:
        """Here the first signal is only noted: what runs asks `was_asked` and ends by itself. Outside it raises
        KeyboardInterrupt."""
        self.listen()
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            self._last_words()
            _end_descendants()
            os._exit(EXIT_KILLED)
        self._asked = True
        self._notice()
        if not self._patient:
            raise KeyboardInterrupt


def _end_descendants() -> None:
    """Kills what this process started, and what that started: an agent of a Ray of our own would stay for minutes,
    looking for the node that is gone. A cluster that we are only a guest of is none of our children."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parents[int(stat.parent.name)] = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    ours = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= found
    for pid in ours - {os.getpid()}:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
