"""The processes of a sweep, found in the system's own table."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tune.home import Home

SLOT_TITLES = ("ray::Slot", "ray::ResourceTrainable")  # as Ray names a slot's process, idle or in a method


def slot_process() -> int:
    """The process of a slot that runs, found by Ray's title for it and by its parents: a raylet of ours, and us."""
    for process, title, parent in _living():
        with contextlib.suppress(OSError):
            if title.startswith(SLOT_TITLES) and parent_of(parent) == os.getpid():
                return process
    raise AssertionError("no slot is running")


def children_of(process: int) -> dict[int, str]:
    """Living processes that it started, with their titles."""
    return {child: title for child, title, parent in _living() if parent == process}


def parent_of(process: int) -> int:
    """The parent's id; 0 for the first process."""
    if process == 0:
        return 0
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def is_gone(process: int) -> bool:
    """Whether a process has ended, though its parent may not have asked how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def processes_of(home: Home) -> dict[int, str]:
    """Living processes that were started for these results, whoever their parent is now."""
    mark = f"INFOSAM_HOME={home.folder}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
    return found


def _living() -> Iterator[tuple[int, str, int]]:
    """Ids, titles and parents' ids."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found = (folder / "cmdline").read_bytes().decode(errors="replace"), parent_of(int(folder.name))
            except OSError:
                continue
            yield int(folder.name), *found
