"""Keeps the files that were opened last, so that a volume is read once and not for every slice of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

from infosam.data.formats.contract import Levels, Stack

KEPT_FILES = 16  # of those that hold little but a file handle
KEPT_MIB = 1024


class Shelf:
    """Opened files by key, the last ones used up to `KEPT_FILES` and `KEPT_MIB`, and their levels. For threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, Stack] = OrderedDict()
        self._opening: dict[Hashable, Lock] = {}
        self._levels: dict[Hashable, Levels] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process files are opened anew."""
        return Shelf, ()

    def stack(self, key: Hashable, open_it: Callable[[], Stack]) -> Stack:
        """The opened file of a key; two threads never open the same one twice."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            opening = self._opening.setdefault(key, Lock())
        with opening:
            with self._lock:
                if key in self._kept:
                    return self._kept[key]
            stack = open_it()
            with self._lock:
                self._kept[key] = stack
                self._opening.pop(key, None)
                self._make_room()
        return stack

    def levels(self, key: Hashable, measure: Callable[[], Levels]) -> Levels:
        """What `measure` gave the first time."""
        with self._lock:
            if key in self._levels:
                return self._levels[key]
            measuring = self._opening.setdefault(("levels", key), Lock())
        with measuring:
            if key not in self._levels:
                self._levels[key] = measure()
        return self._levels[key]

    def _make_room(self) -> None:
        """The image and the mask at hand stay in any case."""
        while len(self._kept) > 2 and (
            len(self._kept) > KEPT_FILES or sum(stack.nbytes for stack in self._kept.values()) > KEPT_MIB << 20
        ):
            self._kept.popitem(last=False)
