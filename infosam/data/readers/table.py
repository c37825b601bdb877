"""Chooses the reader of a source by its content."""

from __future__ import annotations

from pathlib import Path

from infosam.data.readers.array_sets import ArraySets
from infosam.data.readers.beside import Beside
from infosam.data.readers.cases import Cases
from infosam.data.readers.coco import Coco
from infosam.data.readers.contract import Reader
from infosam.data.readers.folders import Folders
from infosam.data.readers.foreign import not_read
from infosam.data.readers.huggingface import HuggingFace
from infosam.data.readers.lists import Lists
from infosam.errors import DataError

# Most telling first: a folder of images and masks may hold a list of them, and a data set's folder a stray picture.
READERS: tuple[Reader, ...] = (HuggingFace(), Lists(), Coco(), Folders(), ArraySets(), Beside(), Cases())
SHOWN_NAMES = 10


def understood() -> str:
    """All layouts in words."""
    files = "images and masks may be pictures, GeoTIFF, NIfTI, DICOM (a file, or a folder with one series), npy or npz"
    return "expected one of: " + "; ".join([*(reader.layout for reader in READERS), files])


def choose_reader(source: Path) -> Reader:
    """The reader of a source. Raises DataError if there is no such source or nobody understands it."""
    try:
        if not source.exists():
            raise DataError(f"{source}: no such file or folder; {understood()}")
        for reader in READERS:
            if reader.fits(source):
                return reader
        inside = sorted(path.name + "/" * path.is_dir() for path in source.iterdir()) if source.is_dir() else None
    except OSError as error:
        raise DataError(f"{source}: cannot be opened ({error.strerror}); check its permissions") from error
    if inside is None:
        raise DataError(f"{source}: not a list, annotation file or data set that is understood; {understood()}")
    lists = [name for name in inside if name.lower().endswith((".csv", ".tsv", ".json"))]
    hint = f"; did you mean {source / lists[0]}?" if lists else ""
    shown = ", ".join(inside[:SHOWN_NAMES]) + (", ..." if len(inside) > SHOWN_NAMES else "") or "nothing"
    raise DataError(f"{source}: no data set found in it (it holds {shown}){hint}{not_read(source)}; {understood()}")
