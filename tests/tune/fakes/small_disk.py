"""A small disk of its own that can be filled and emptied: a real one where this user may mount it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MARK = "disk-full"


class Disk:
    """A folder that can be filled and emptied.

    Args:
        pretend: makes the code under test behave so, on a folder that is no disk.
    """

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, *, is_real: bool, pretend: Callable[[pytest.MonkeyPatch], None]
    ) -> None:
        self.folder = folder
        self._patch = patch
        self._is_real = is_real
        self._pretend = pretend

    def fill(self) -> None:
        """From now on nothing can be written."""
        filler = self.folder / MARK
        if not self._is_real:
            filler.touch()  # `lasting_training` looks for it
            self._pretend(self._patch)
            return
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        """Makes room."""
        self._patch.undo()
        (self.folder / MARK).unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size: str, pretend: Callable[[pytest.MonkeyPatch], None]) -> Iterator[Disk]:
    """One of `size` (as mount takes it) at a folder that is made."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    is_real = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        with pytest.MonkeyPatch.context() as patch:
            yield Disk(folder, patch, is_real=is_real, pretend=pretend)
    finally:
        if is_real:
            subprocess.run(["umount", "-l", str(folder)], check=True)
