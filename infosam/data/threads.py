"""Work of a few threads, taken in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from typing import TypeVar

MAX_THREADS = 8
AHEAD = 2  # results for each thread that may wait to be taken
T = TypeVar("T")


class Room:
    """What threads share: as much as there is may be taken, by one who needs more than that when he is alone."""

    def __init__(self, amount: int) -> None:
        self._amount = self._free = amount
        self._changed = Condition()

    def take(self, amount: int) -> int:
        """Waits until so much is free. Returns what was taken, to be given back."""
        taken = min(amount, self._amount)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= taken)
            self._free -= taken
        return taken

    def give_back(self, taken: int) -> None:
        """For others to take."""
        with self._changed:
            self._free += taken
            self._changed.notify_all()


R = TypeVar("R")


def in_order(
    work: Callable[[T], R], things: Iterable[T], *, small: Callable[[T], bool] = lambda _: False
) -> Iterator[R]:
    """Results in the order of `things`, however many there are, with few of them in memory.

    Threads, not processes: decoding is done outside Python's lock, and rows of Arrow files cannot be sent. What is
    `small` is done here at once: threads would only wait for that lock. Raises what `work` raises; what was not begun
    by then, or when nobody takes any more, is left."""
    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for thing in things:
                waiting.append(_done(work(thing)) if small(thing) else pool.submit(work, thing))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _done(result: R) -> Future[R]:
    future: Future[R] = Future()
    future.set_result(result)
    return future
