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
    place = _place(out)
    parents = [parent for parent in place.parents if not parent.exists()]
    folder = place.parent / f".{place.name}.{uuid.uuid4().hex[:8]}.partial"
    handle: int | None = None
    try:
        fresh = folder.with_suffix(".new")
        fresh.mkdir(parents=True)
        handle = _locked(fresh)
        fresh.rename(folder)  # not before it is locked: another process may be tidying up
        with suppress(OSError):
            _remove_left(place)
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


def _place(out: Path) -> Path:
    """Where `out` really is: a link to a folder, perhaps on a larger disk, stays one."""
    return Path(os.path.realpath(out))


def _left(place: Path, ending: str) -> Iterator[Path]:
    for path in place.parent.iterdir():
        name = path.name.removeprefix(f".{place.name}.")
        if name != path.name and name.endswith(ending) and len(name) == len("01234567") + len(ending):
            yield path


def _remove_left(place: Path) -> None:
    for path in _left(place, ".partial"):
        handle = _locked(path)
        if handle is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(handle)
    for path in _left(place, ".replaced"):
        if place.exists():
            shutil.rmtree(path, ignore_errors=True)


def put_back(out: Path) -> None:
    """An older data set that a killed process had moved aside and not yet replaced is at `out` again."""
    place = _place(out)
    if place.exists() or not place.parent.is_dir():
        return
    for aside in _left(place, ".replaced"):
        handle = _locked(aside.with_suffix(".partial"))  # None: it is at work, or had finished
        if handle is not None:
            with suppress(OSError):
                aside.rename(place)
            os.close(handle)


def put_in_place(folder: Path, out: Path, *, replace: bool = False) -> None:
    """Renames the finished folder to `out`; with `replace` an older data set there is moved aside first and removed
    last. Raises OSError if there is one without."""
    place = _place(out)
    aside = folder.with_suffix(".replaced")
    replacing = replace and place.exists() and any(place.iterdir())
    if replacing:
        place.rename(aside)
    try:
        folder.rename(place)
    except OSError:
        if replacing:
            aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)
