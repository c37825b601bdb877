"""TIFF with many bands or more than 8 bits in each, mostly satellite scenes, read a window at a time."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from infosam.data.formats.contract import KEPT, Box, Stack, chosen_bands, library, reading
from infosam.data.formats.names import TIFF_SUFFIXES, has_suffix
from infosam.data.masks import Unusable
from infosam.data.pairs import PartOptions
from infosam.data.pixels import PICTURE_ERRORS, open_picture_file, refuse_pages

EXTRA = "geo"
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MIN_IS_BLACK, RGB = 1, 2  # of TIFF's ways to mean a value
ORIENTATION = 0x0112
COLOURS = ("red", "green", "blue")
_OPENING = Lock()  # filters of warnings are one for all threads


class Scene(Stack):
    """One open file."""

    uses = frozenset({"bands", "window"})

    def __init__(self, path: Path, kind: str, dataset: Any, bands: tuple[int, ...], *, raw: bool) -> None:
        self._path, self._kind, self._dataset, self._bands, self._raw = path, kind, dataset, bands, raw
        self._lock = Lock()  # a file handle of GDAL serves one thread at a time
        self.size = (int(dataset.height), int(dataset.width))
        self.levels = KEPT if {dataset.dtypes[band - 1] for band in bands} == {"uint8"} else None
        place = dataset.transform
        if not place.is_identity:
            self.affine = np.array(
                [[place.a, place.b, 0, place.c], [place.d, place.e, 0, place.f], [0, 0, 0, 0], [0, 0, 0, 1]], np.float64
            )

    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        shape = (len(self._bands), -(-box.height // step), -(-box.width // step))
        window = ((box.top, box.top + box.height), (box.left, box.left + box.width))
        with self._lock, reading(self._path, self._kind):
            read: NDArray[np.generic] = self._dataset.read(list(self._bands), window=window, out_shape=shape)
            nothing = [self._dataset.nodatavals[band - 1] for band in self._bands]
        if not self._raw and self.levels != KEPT:
            read = read.astype(np.float32 if read.dtype.itemsize < 4 else np.float64)
            for band, value in zip(read, nothing, strict=True):
                if value is not None:
                    band[band == value] = np.nan
        return read[0] if len(self._bands) == 1 else np.moveaxis(read, 0, 2)


def is_scene(path: Path) -> bool:
    """Whether a TIFF is more than an ordinary picture. Reads its header only."""
    if not has_suffix(path, TIFF_SUFFIXES):
        return False
    try:
        with path.open("rb") as file:
            if file.read(4) not in MAGIC:
                return False
        with open_picture_file(path) as image:
            tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
            bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
            return len(bits) > 1 and max(bits) > 8
    except UnidentifiedImageError:
        return True
    except PICTURE_ERRORS:
        return False  # opening it as a picture says what is wrong


def is_raw(path: Path, kind: Literal["image", "mask"]) -> bool:
    """Whether a TIFF can be read a window at a time: its values are meant as they are. Palettes, colours for print,
    white as 0, transparency and turned pictures are for the reader of ordinary pictures, and so are masks in colours.
    Reads the header only."""
    try:
        with path.open("rb") as file:
            if not has_suffix(path, TIFF_SUFFIXES) or file.read(4) not in MAGIC:
                return False
        with open_picture_file(path) as image:
            tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
            bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
            fit = min(bits) >= 8 if kind == "image" else len(bits) == 1
            plain = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) in (MIN_IS_BLACK, RGB)
            upright = tags.get(ORIENTATION, 1) == 1
            return plain and upright and fit and TiffImagePlugin.EXTRASAMPLES not in tags
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return True
    except PICTURE_ERRORS:
        return False


def open_scene(path: Path, kind: Literal["image", "mask"], parts: PartOptions) -> Scene:
    """A scene with the bands that are shown. Raises Unusable, and DataError without rasterio."""
    rasterio = library("rasterio", EXTRA, path)
    with reading(path, kind), _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it lies nowhere on earth
        # One driver and no files beside it: others would follow what a file names, even to the network.
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            dataset = rasterio.open(path, driver="GTiff")
    with suppress(*PICTURE_ERRORS), open_picture_file(path) as image:  # of kinds that Pillow does not know: no matter
        refuse_pages(image, path, kind)
    if kind == "mask":
        if dataset.count != 1:
            raise Unusable(f"{path}: the mask has {dataset.count} bands; save it with one", "mask-values")
        return Scene(path, kind, dataset, (1,), raw=True)
    bands = chosen_bands(parts.bands, dataset.count, path) or _shown(dataset)
    odd = {dataset.dtypes[band - 1] for band in bands if dataset.dtypes[band - 1].startswith("complex")}
    if odd:
        raise Unusable(f"{path}: complex values are not read; save the amplitude as float32", "format")
    return Scene(path, kind, dataset, bands, raw=False)


def _shown(dataset: Any) -> tuple[int, ...]:
    """Red, green and blue where the file names them, else the first three bands, of one or two the first."""
    names = [colour.name for colour in dataset.colorinterp]
    if all(colour in names for colour in COLOURS):
        return tuple(names.index(colour) + 1 for colour in COLOURS)
    return (1, 2, 3) if dataset.count > 2 else (1,)
