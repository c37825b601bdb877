"""Chooses the reader of a source by its content."""

from __future__ import annotations

from pathlib import Path

from infosam.data.card import address_in
from infosam.data.pairs import ReadOptions
from infosam.data.readers.array_sets import ArraySets
from infosam.data.readers.beside import Beside
from infosam.data.readers.cases import Cases
from infosam.data.readers.coco import Coco
from infosam.data.readers.contract import Reader
from infosam.data.readers.folders import Folders
from infosam.data.readers.foreign import not_read
from infosam.data.readers.huggingface import HuggingFace
from infosam.data.readers.lists import Lists
from infosam.data.readers.patterns import EXAMPLE, Patterns
from infosam.data.readers.pictures import folders_in
from infosam.errors import ConfigError, DataError

# Most telling first: a folder of images and masks may hold a list of them, and a data set's folder a stray picture.
READERS: tuple[Reader, ...] = (HuggingFace(), Lists(), Coco(), Folders(), ArraySets(), Cases(), Beside())
SHOWN_NAMES = 10
SHOWN_FOLDERS = 3
LOOKED_AT = 20  # folders below one that is not understood


def understood() -> str:
    """All layouts in words."""
    files = "images and masks may be pictures, GeoTIFF, NIfTI, DICOM (a file, or a folder with one series), npy or npz"
    return "expected one of: " + "; ".join([*(reader.layout for reader in READERS), files])


def choose_reader(source: Path, options: ReadOptions | None = None) -> Reader:
    """The reader of a source. Raises DataError if there is no such source or nobody understands it."""
    try:
        if not source.exists():
            if url := address_in(source):
                cure = f"copy it here first; a data set of infosam with `infosam data pull {url}`"
                raise DataError(f"{url}: only files on this machine are read; {cure}")
            raise DataError(f"{source}: no such file or folder; {understood()}")
        if options and (options.images is not None or options.masks is not None):
            return _without_columns(Patterns(), options)
        for reader in READERS:
            if reader.fits(source):
                return reader if isinstance(reader, Lists | HuggingFace | Cases) else _without_columns(reader, options)
        inside = sorted(path.name + "/" * path.is_dir() for path in source.iterdir()) if source.is_dir() else None
    except OSError as error:
        raise DataError(f"{source}: cannot be opened ({error.strerror}); check its permissions") from error
    if inside is None:
        raise DataError(f"{source}: not a list, annotation file or data set that is understood; {understood()}")
    below = _understood_below(source)
    lists = [name for name in inside if name.lower().endswith((".csv", ".tsv", ".json"))]
    near = below or [source / name for name in lists[:1]]
    hint = f"; did you mean {' or '.join(map(str, near))}? Or" if near else ";"
    if len(near) > SHOWN_FOLDERS:  # perhaps one for each image or patient
        hint = f"; {len(near)} folders in it, such as {near[0]}, are data sets of their own;"
    hint += f" say where images and masks lie, {EXAMPLE} (NAME: what both have in common)"
    shown = ", ".join(inside[:SHOWN_NAMES]) + (", ..." if len(inside) > SHOWN_NAMES else "") or "nothing"
    raise DataError(f"{source}: no data set found in it (it holds {shown}){hint}{not_read(source)}; {understood()}")


def _without_columns(reader: Reader, options: ReadOptions | None) -> Reader:
    """The reader. Raises ConfigError if columns were named, which it does not have."""
    own = ReadOptions()
    for option, name, standard in (
        ("--image-column", (options or own).image_column, own.image_column),
        ("--mask-column", (options or own).mask_column, own.mask_column),
    ):
        if name != standard:
            raise ConfigError(
                f"{option} {name!r}: only lists, Hugging Face data sets and folders of cases have columns; leave it out"
            )
    return reader


def _understood_below(source: Path) -> list[Path]:
    """Folders up to two levels down that are understood: a data set inside a data set's folder, or one of its parts."""
    level = folders_in(source)[:LOOKED_AT]
    for _ in range(2):
        if found := [folder for folder in level if any(reader.fits(folder) for reader in READERS)]:
            return found
        level = [below for folder in level for below in folders_in(folder)][:LOOKED_AT]
    return []
