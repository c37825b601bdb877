"""What every reader is: it knows its own by the content, and lists image-mask pairs without opening them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infosam.data.pairs import Listed, ReadOptions
from infosam.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a reader found."""

    root: Path  # folder all paths lie in
    listed: list[Listed]
    notes: tuple[str, ...] = ()  # what it decided by itself, such as a rule for names


class Reader(Protocol):
    """One way of keeping images and masks."""

    layout: str  # in words, for the message that says what is understood

    def fits(self, source: Path) -> bool:
        """Whether `source`, which exists, is kept this way. Cheap: names and heads of files. Never raises for odd or
        damaged content."""
        ...

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        """All pairs; what is wrong with single ones goes to `problems`. Raises DataError if nothing can be listed."""
        ...


def inside(root: Path, text: str, where: str, what: str) -> Path:
    """The path that a list names, below `root`. Raises DataError if it leaves the folder.

    Compared as text: links that lead out of the folder (caches of large files) are the user's own wish."""
    if "\\" in text and not (root / text).exists():
        raise DataError(f"{where}: {what} {text!r} has backslashes between folders; write / instead")
    if ".." not in text and not os.path.isabs(text):
        return root / text
    relative = os.path.relpath(root / text, root)
    if relative.split(os.sep)[0] == os.pardir:
        raise DataError(f"{where}: {what} {text!r} lies outside {root}; use paths relative to the list, no '..'")
    return root / relative
