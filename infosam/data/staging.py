"""New folders that are there completely or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infosam.errors import DataError


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into. Afterwards it is gone, and so are parents made for nothing."""
    parents = [parent for parent in out.absolute().parents if not parent.exists()]
    folder = out.absolute().parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not out.exists():
            for parent in parents:
                with suppress(OSError):
                    parent.rmdir()


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
