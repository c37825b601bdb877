"""Ctrl-C while a sweep runs: the first one ends it cleanly, with everything recorded; the second one ends the process.

SIGTERM, which a cluster sends before it kills, counts like Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
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
            self._listen()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def was_asked(self) -> bool:
        """Whether a signal came."""
        return self._asked

    @contextlib.contextmanager
    def only_asked(self) -> Iterator[None]:
        """Here the first signal is only noted: what runs asks `was_asked` and ends by itself. Outside it raises
        KeyboardInterrupt."""
        self._listen()
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def _listen(self) -> None:
        """Again after `ray.init`, which puts a handler of its own in our place."""
        for number in self._before:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            # Ray processes of our own are children that the kernel kills with us, and nothing else is held.
            self._last_words()
            os._exit(EXIT_KILLED)
        self._asked = True
        self._notice()
        if not self._patient:
            raise KeyboardInterrupt
