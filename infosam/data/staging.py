"""New folders that are there completely or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infosam.errors import DataError


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into. Afterwards it is gone, and so are parents made for nothing.

    What a killed process left beside `out` is removed; a folder in use is locked, and the system ends the lock with its
    process."""
    parents = [parent for parent in out.absolute().parents if not parent.exists()]
    folder = out.absolute().parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    handle: int | None = None
    try:
        fresh = folder.with_suffix(".new")
        fresh.mkdir(parents=True)
        handle = _locked(fresh)
        fresh.rename(folder)  # not before it is locked: another process may be tidying up
        with suppress(OSError):
            _remove_left(out.absolute())
        yield folder
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
    finally:
        if handle is not None:
            os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)
        if not out.exists():
            for parent in parents:
                with suppress(OSError):
                    parent.rmdir()


def _locked(folder: Path) -> int | None:
    """The handle that holds a folder's lock; None if another process has it, or it is gone."""
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if handle is not None:
            os.close(handle)
        return None
    return handle


def _remove_left(out: Path) -> None:
    for path in out.parent.iterdir():
        name = path.name.removeprefix(f".{out.name}.")
        if name == path.name or not name.endswith(".partial") or len(name) != len("01234567.partial"):
            continue
        handle = _locked(path)
        if handle is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(handle)


def put_in_place(folder: Path, out: Path) -> None:
    """Renames the finished folder to `out`; an older data set there is moved aside first and removed last."""
    aside = folder.with_suffix(".replaced")
    replacing = out.exists() and any(out.iterdir())
    if replacing:
        out.rename(aside)
    try:
        folder.rename(out)
    except OSError:
        if replacing:
            aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)
