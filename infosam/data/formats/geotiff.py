"""TIFF with many bands or more than 8 bits in each, mostly satellite scenes, read a window at a time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from infosam.data.formats.contract import KEPT, Box, Stack, chosen_bands, library, reading, told_bands
from infosam.data.formats.names import TIFF_SUFFIXES, has_suffix
from infosam.data.masks import Unusable
from infosam.data.pairs import PartOptions
from infosam.data.pixels import PICTURE_ERRORS, open_picture_file

EXTRA = "geo"
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MIN_IS_BLACK, RGB = 1, 2  # of TIFF's ways to mean a value
ORIENTATION = 0x0112
NO_DATA = 42113  # GDAL's tag
SCALE, TIE_POINTS, TRANSFORM, GEO_KEYS = 33550, 33922, 34264, 34735  # of GeoTIFF
PLACED = (NO_DATA, SCALE, TRANSFORM)
SPACE_KEYS = (2048, 3072)  # EPSG codes of the angles and of the map
SIGNED = 2  # of TIFF's kinds of numbers
SENTINELS = (-9999.0, -32768.0)  # written for "nothing" by programs that do not declare it
FAR_BELOW = -1e30  # and so are the lowest numbers of a float
COLOURS = ("red", "green", "blue")
HIDDEN = "pixels that a mask declares to be without data count as background"
_OPENING = Lock()  # filters of warnings, and loggers, are one for all threads


class Scene(Stack):
    """One open file."""

    uses = frozenset({"bands", "window"})

    def __init__(self, path: Path, kind: str, dataset: Any, bands: tuple[int, ...], *, raw: bool) -> None:
        self._path, self._kind, self._dataset, self._bands, self._raw = path, kind, dataset, bands, raw
        self._lock = Lock()  # a file handle of GDAL serves one thread at a time
        self.size = (int(dataset.height), int(dataset.width))
        kinds = {dataset.dtypes[band - 1] for band in bands}
        self.levels = KEPT if kinds == {"uint8"} else None
        flags = [dataset.mask_flag_enums[band - 1] for band in bands]
        self._holes = any([flag.name for flag in one] != ["all_valid"] for one in flags)
        self._guess = not raw and not self._holes and not any(kind.startswith("uint") for kind in kinds)
        if raw and dataset.nodatavals[0] not in (None, 0):
            self.remark = HIDDEN
        place = dataset.transform
        if not place.is_identity:
            self.affine = _affine(place.a, place.b, place.c, place.d, place.e, place.f)
            self.space = _space_of(dataset)

    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        shape = (len(self._bands), -(-box.height // step), -(-box.width // step))
        window = ((box.top, box.top + box.height), (box.left, box.left + box.width))
        with self._lock, reading(self._path, self._kind):
            read: NDArray[np.generic] = self._dataset.read(list(self._bands), window=window, out_shape=shape)
            holes: NDArray[np.bool_] | None = None
            if self._holes:
                holes = self._dataset.read_masks(list(self._bands), window=window, out_shape=shape) == 0
        if self._guess:
            holes = np.isin(read, SENTINELS) | np.less(read, FAR_BELOW)
        if not self._raw and self.levels != KEPT:
            read = read.astype(np.float32 if read.dtype.itemsize < 4 else np.float64)
        if holes is not None:
            read[holes] = 0 if self._raw or self.levels == KEPT else np.nan
        return read[0] if len(self._bands) == 1 else np.moveaxis(read, 0, 2)


def is_scene(path: Path) -> bool:
    """Whether a TIFF is more than an ordinary picture: several bands of more than 8 bits, or values of more than 8 bits
    that lie somewhere on earth or say which of them are no data, or bytes below 0. Reads its header only."""
    tags = _tags(path)
    if not isinstance(tags, dict):
        return tags
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    if len(bits) > 1:
        return max(bits) > 8
    signed = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == SIGNED
    more = signed if bits[0] == 8 else bits[0] > 8 and any(tag in tags for tag in PLACED)
    return more and is_raw(path, "image")


def is_raw(path: Path, kind: Literal["image", "mask"]) -> bool:
    """Whether a TIFF can be read a window at a time: its values are meant as they are. Palettes, colours for print,
    white as 0, transparency and turned pictures are for the reader of ordinary pictures, and so are masks in colours.
    Reads the header only."""
    tags = _tags(path)
    if not isinstance(tags, dict):
        return tags
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    fit = min(bits) >= 8 if kind == "image" else len(bits) == 1
    plain = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) in (MIN_IS_BLACK, RGB)
    upright = tags.get(ORIENTATION, 1) == 1
    return plain and upright and fit and TiffImagePlugin.EXTRASAMPLES not in tags


def is_grey(path: Path) -> bool:
    """Whether a TIFF has one band that Pillow can read."""
    tags = _tags(path)
    return isinstance(tags, dict) and len(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) == 1


def hides_values(path: Path) -> bool:
    """Whether a mask in a TIFF declares a value other than 0 to be no data: read as a picture, it might be the object.
    Reads the header only."""
    tags = _tags(path)
    if not isinstance(tags, dict) or NO_DATA not in tags:
        return False
    try:
        return float(str(tags[NO_DATA]).strip("\0 ")) != 0 and is_raw(path, "mask")
    except ValueError:
        return False


def place_of(path: Path) -> Stack | None:
    """Where a TIFF lies on earth, by its header only; None if it does not say."""
    tags = _tags(path)
    if not isinstance(tags, dict):
        return None
    try:
        if TRANSFORM in tags:
            a, b, _, c, d, e, _, f = map(float, tags[TRANSFORM][:8])
        else:
            column, row, _, x, y, _ = map(float, tags[TIE_POINTS][:6])
            a, b, d, e = float(tags[SCALE][0]), 0.0, 0.0, -float(tags[SCALE][1])
            c, f = x - column * a, y - row * e
        return _Place(tags, _affine(a, b, c, d, e, f))
    except (KeyError, ValueError, TypeError, IndexError):
        return None


class _Place(Stack):
    """What a header says; without pixels."""

    def __init__(self, tags: dict[int, Any], affine: NDArray[np.float64]) -> None:
        self.affine, self.size = affine, (int(tags[TiffImagePlugin.IMAGELENGTH]), int(tags[TiffImagePlugin.IMAGEWIDTH]))
        keys = list(tags.get(GEO_KEYS, ()))[4:]
        entries = {keys[at]: keys[at + 3] for at in range(0, len(keys) - 3, 4) if keys[at + 1] == 0}
        known = [entries[key] for key in SPACE_KEYS if key in entries]
        self.space = f"EPSG:{known[-1]}" if known and 0 < known[-1] < 32767 else None

    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        raise NotImplementedError


def _tags(path: Path) -> dict[int, Any] | bool:
    """The header of a TIFF; False for other files and damaged ones, True for a TIFF that Pillow cannot read."""
    if not has_suffix(path, TIFF_SUFFIXES):
        return False
    try:
        if not path.is_file():
            return False  # a pipe would never end
        with path.open("rb") as file:
            if file.read(4) not in MAGIC:
                return False
        with quiet(), open_picture_file(path) as image:
            return dict(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return True
    except PICTURE_ERRORS:
        return False  # opening it as a picture says what is wrong


@contextmanager
def quiet() -> Iterator[None]:
    """Pillow prints a line for each file with many bands."""
    logger = logging.getLogger(TiffImagePlugin.__name__)
    with _OPENING:
        before, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = before


def _affine(a: float, b: float, c: float, d: float, e: float, f: float) -> NDArray[np.float64]:
    return np.array([[a, b, 0, c], [d, e, 0, f], [0, 0, 0, 0], [0, 0, 0, 1]], np.float64)


def _space_of(dataset: Any) -> str | None:
    code = dataset.crs.to_epsg() if dataset.crs else None
    return f"EPSG:{code}" if code else None


def open_scene(path: Path, kind: Literal["image", "mask"], parts: PartOptions) -> Scene:
    """A scene with the bands that are shown. Raises Unusable, and DataError without rasterio."""
    rasterio = library("rasterio", EXTRA, path)
    with reading(path, kind), _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it lies nowhere on earth
        # One driver and no files beside it: others would follow what a file names, even to the network.
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            dataset = rasterio.open(path, driver="GTiff")
    if kind == "mask":
        if dataset.count != 1:
            raise Unusable(f"{path}: the mask has {dataset.count} bands; save it with one", "mask-values")
        return Scene(path, kind, dataset, (1,), raw=True)
    bands = chosen_bands(parts.bands, dataset.count, path) or _shown(dataset)
    guessed = not parts.bands and dataset.count not in (1, 3) and not _names_colours(dataset)
    odd = {dataset.dtypes[band - 1] for band in bands if dataset.dtypes[band - 1].startswith("complex")}
    if odd:
        raise Unusable(f"{path}: complex values are not read; save the amplitude as float32", "format")
    scene = Scene(path, kind, dataset, bands, raw=False)
    scene.remark = told_bands(bands, dataset.count) if guessed else None
    return scene


def _names_colours(dataset: Any) -> bool:
    return {colour.name for colour in dataset.colorinterp} >= set(COLOURS)


def _shown(dataset: Any) -> tuple[int, ...]:
    """Red, green and blue where the file names them, else the first three bands, of one or two the first."""
    if _names_colours(dataset):
        names = [colour.name for colour in dataset.colorinterp]
        return tuple(names.index(colour) + 1 for colour in COLOURS)
    return (1, 2, 3) if dataset.count > 2 else (1,)
