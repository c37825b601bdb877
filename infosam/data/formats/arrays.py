"""NumPy's own files: npy and npz, without pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.format import read_array_header_1_0 as header_1_0
from numpy.lib.format import read_array_header_2_0 as header_2_0
from numpy.typing import NDArray

from infosam.data.formats.contract import (
    DAMAGED,
    KEPT,
    Box,
    Stack,
    check_memory,
    chosen_bands,
    reading,
    shape_text,
    told_bands,
)
from infosam.data.masks import Unusable
from infosam.data.pairs import PartOptions

NPY_MARK, ZIP_MARK = b"\x93NUMPY", b"PK"
Role = Literal["image", "mask"]
NAMES: dict[Role, tuple[str, ...]] = {
    "image": ("image", "images", "img", "imgs", "data", "x"),
    "mask": ("label", "labels", "mask", "masks", "gt", "gts", "seg", "y"),
}
SHAPES = {
    "image": "(H, W), (H, W, 3), (3, H, W), (N, H, W), (N, H, W, 3) or (N, 3, H, W)",
    "mask": "(H, W) or (N, H, W)",
}
COLOURS = (3, 4)  # bands in the last axis; with 4 the last one is transparency or infrared
SLICES_LAST = "arrays whose last axis is much shorter, or alone not square, are read as rows x columns x slices"
SLICES_FIRST = "arrays that are square nowhere are read as slices x rows x columns; if slices are last, use np.moveaxis"


class Array(Stack):
    """One picture or N of them."""

    uses = frozenset({"bands", "window"})

    def __init__(
        self, array: NDArray[np.generic], bands: tuple[int, ...], *, colour: bool, remark: str | None = None
    ) -> None:
        self.remark = remark
        self._array = array if array.ndim == 3 + colour else array[None]
        self._channels = [band - 1 for band in bands] if colour else []
        self.count = int(self._array.shape[0])
        self.size = (int(self._array.shape[1]), int(self._array.shape[2]))
        self.sliced = self.count > 1
        self.plane = "slice" if self.sliced else ""
        self.nbytes = 0 if isinstance(array, np.memmap) else array.nbytes
        self.photo = len(self._channels) == 3 and array.shape[-1] in COLOURS
        self.levels = KEPT if array.dtype in (np.uint8, np.bool_) else None

    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        top, left, height, width = box
        part = self._array[index, top : top + height : step, left : left + width : step]
        if self._channels:
            part = part[:, :, self._channels if len(self._channels) > 1 else self._channels[0]]
        return np.asarray(part)


def open_array(path: Path, role: Role, parts: PartOptions, drawn: tuple[int, ...] | None = None) -> Array:
    """The array of a file; of several in an npz the one whose name says the role. `drawn` is the shape of the mask of
    an image, which tells slices from bands. Raises Unusable."""
    array = load(path, role)
    if array.dtype.kind not in "biuf":
        raise Unusable(
            f"{path}: the {role} holds {array.dtype}, not plain numbers; save it as uint8, uint16 or float32"
        )
    found = array.shape
    array, colour, remark = arranged(array, role, drawn)
    if array.ndim not in (2 + colour, 3 + colour) or 0 in array.shape:
        raise Unusable(f"{path}: the {role} has the shape {shape_text(found)}; expected {SHAPES[role]}")
    available = array.shape[-1] if colour else 1
    bands = chosen_bands(parts.bands if role == "image" else (), available, path)
    if not bands:
        bands = (1, 2, 3) if available > 2 else (1,)
        remark = told_bands(bands, available) if available not in (1, *COLOURS) else remark
    if role == "mask" and array.dtype == np.bool_:
        array = array.view(np.uint8)  # with values, --class and --instances mean the same as in other masks
    return Array(array, bands, colour=colour, remark=remark)


def arranged(
    array: NDArray[np.generic], role: Role, drawn: tuple[int, ...] | None
) -> tuple[NDArray[np.generic], bool, str | None]:
    """An array with slices first and bands last, whether it has bands, and what is to be told of a guess."""
    if array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if role == "image" and array.ndim > 2:
        axis = bands_axis(array.shape, drawn)
        if axis is not None:
            return np.moveaxis(array, axis, -1), True, None
    if array.ndim != 3 or min(array.shape) <= 1:
        return array, False, None
    first, rows, last = array.shape
    if first == rows != last or 2 * last <= min(first, rows):
        return np.moveaxis(array, -1, 0), False, SLICES_LAST
    told = rows == last != first or 2 * first <= min(rows, last)
    return array, False, None if told else SLICES_FIRST


def bands_axis(shape: tuple[int, ...], drawn: tuple[int, ...] | None) -> int | None:
    """Which axis of an image holds bands: the one its mask lacks, else one as long as colours are many. None: none."""
    last = len(shape) - 1
    for axis in (last, last - 2):
        if drawn is not None and _sides(shape[:axis] + shape[axis + 1 :]) == _sides(drawn):
            return axis
    if shape[-1] in COLOURS:
        return last
    return 1 if len(shape) == 4 and shape[1] in COLOURS else None


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side > 1)


def shape_of(path: Path) -> tuple[int, ...] | None:
    """That of a mask, by its header only; None if it cannot be read, which opening it explains."""
    try:
        if path.suffix.lower() == ".npy":
            return load(path, "mask").shape  # not read before it is touched
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            with archive.open(f"{_name(names, path, 'mask')}.npy") as file:
                read = header_1_0 if np.lib.format.read_magic(file) == (1, 0) else header_2_0
                shape: tuple[int, ...] = read(file)[0]
                return shape
    except (Unusable, *DAMAGED):
        return None


def load(path: Path, role: Role, name: str | None = None) -> NDArray[np.generic]:
    """An array as it was saved; of an archive the one with this name, else the one whose name says the role. Raises
    Unusable."""
    with reading(path, role), path.open("rb") as file:
        head = file.read(len(NPY_MARK))
        file.seek(0)
        if head and not head.startswith((NPY_MARK, ZIP_MARK)):
            text = f"{path}: the {role} is no file of NumPy (pickles are never loaded); write it with np.save"
            raise Unusable(text, "format")
        try:
            if not head.startswith(ZIP_MARK):
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                with np.load(file, allow_pickle=False) as archive:
                    array = archive[name or _name(archive.files, path, role)]
        except ValueError as error:
            if "object" not in str(error).lower():
                raise
            text = f"{path}: the {role} holds Python objects (pickle), which are never loaded; save plain numbers"
            raise Unusable(text, "format") from error
    check_memory(path, array.shape, array.itemsize)
    return array


def _name(names: list[str], path: Path, role: Role) -> str:
    """Which array of an archive is meant."""
    known = [name for word in NAMES[role] for name in names if name.lower() == word]
    if known or len(names) == 1:
        return [*known, *names][0]
    raise Unusable(
        f"{path}: which of the arrays {', '.join(names) or '(none)'} is the {role}? Name it {NAMES[role][0]!r}",
        "format",
    )
