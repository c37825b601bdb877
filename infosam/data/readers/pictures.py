"""Which pictures and volumes lie below a folder: what systems and tools leave there is not looked at."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from infosam.data.formats.names import is_readable, without_suffix
from infosam.data.readers.series import Names
from infosam.errors import DataError

LEFT_BY_SYSTEMS = ("__macosx", "@eadir")  # and all that begin with a dot, such as .ipynb_checkpoints


def is_hidden(name: str) -> bool:
    """Whether a folder holds copies that nobody means: old versions, thumbnails, forks of files."""
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def picture_files(folder: Path, problems: list[str], depth: int | None = None) -> Iterator[Path]:
    """Files in a folder and below it, folder by folder, or so many levels down; links to folders are followed once.

    Raises DataError for a folder that cannot be listed."""
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions") from error

    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        if real in seen:
            problems.append(f"{place}: a link to a folder that was already read; remove the link")
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        if depth is not None and len(Path(place).relative_to(folder).parts) >= depth:
            folders.clear()
        for name in sorted(files):
            path = Path(place, name)
            if is_readable(path):
                yield path


def pictures_in(folder: Path, problems: list[str], depth: int | None = None) -> Names:
    """They by their path below the folder without ending, sorted."""
    found: Names = {}
    for path in picture_files(folder, problems, depth):
        # Systems write the same accent in one letter or in two.
        name = unicodedata.normalize("NFC", without_suffix(path.relative_to(folder)).as_posix())
        found.setdefault(name, []).append(path)
    return dict(sorted(found.items()))


def holds_pictures(folder: Path, depth: int | None = None) -> bool:
    """Whether there is at least one, at whatever depth or so many levels down."""
    try:
        return next(picture_files(folder, [], depth), None) is not None
    except DataError:
        return False


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in this one, sorted, without those left by systems; none if it cannot be listed."""
    try:
        return [path for path in sorted(folder.iterdir()) if not is_hidden(path.name) and path.is_dir()]
    except OSError:
        return []
