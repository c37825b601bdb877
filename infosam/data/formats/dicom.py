"""DICOM: a folder is one series, a file one slice of it or several frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from infosam.data.formats.contract import KEPT, Box, Levels, Stack, library, reading
from infosam.data.formats.dicom_brightness import Curve, along, in_units
from infosam.data.formats.dicom_header import (
    EXTRA,
    Frame,
    frames_of,
    in_order,
    no_pixels,
    positions_of,
    series_in,
)
from infosam.data.formats.names import dicoms_in
from infosam.data.masks import Unusable

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Series(Stack):
    """Pictures of one size; each is read when it is needed."""

    uses = frozenset({"window"})
    sliced = True

    def __init__(self, frames: Sequence[Frame], kind: Literal["image", "mask"], *, windowed: bool = False) -> None:
        """`windowed`: the user chose the values that are shown, so the file's own choice does not count."""
        self.frames = list(frames)
        self._kind = kind
        self.size = frames[0].size
        self.count = len(frames)
        self.plane = "slice" if len(frames) > 1 else ""
        self.group = frames[0].group
        self.inverted = frames[0].inverted
        self.remark = None if windowed else _remark(self.frames)
        self.levels = _levels(self.frames)
        self._curve = None if windowed else _curve(self.frames)
        self.affine = _affine(self.frames)
        self.unplaced = _backwards(self.frames)

    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        frame = self.frames[index]
        pixels, header = _opened(frame.path, self._kind, frame.number)
        top, left, height, width = box
        pixels = pixels[top : top + height : step, left : left + width : step]
        if self._kind == "mask" and pixels.ndim == 3:
            raise Unusable(f"{frame.path}: the mask has colours; save one value for each pixel", "mask-values")
        if self._kind == "mask" or pixels.ndim == 3:
            return pixels
        functions = library("pydicom.pixels", EXTRA, frame.path)
        with reading(frame.path, self._kind):
            values = in_units(pixels, frame.brightness, header, functions)
            if self._curve is not None:
                values = along(values, self._curve, header, functions)
        if frame.padding is None or self.levels == KEPT:
            return values
        nothing = np.greater_equal(pixels, frame.padding[0]) & np.less_equal(pixels, frame.padding[1])
        return np.where(nothing, np.nan, values) if nothing.any() else values


def _levels(frames: Sequence[Frame]) -> Levels | None:
    """What the file says, if it says the same of all its slices: else brightness would jump."""
    if (curve := _curve(frames)) is not None:
        return ((0.0, curve.top),)
    windows = {frame.brightness.window for frame in frames}
    if len(windows) == 1 and (window := windows.pop()) is not None:
        return (window,)
    plain = all(frame.bits == 8 and frame.brightness.stored for frame in frames)
    return (((0.0, 255.0),) if frames[0].inverted else KEPT) if plain else None


def _curve(frames: Sequence[Frame]) -> Curve | None:
    curves = {frame.brightness.curve for frame in frames}
    return curves.pop() if len(curves) == 1 else None


def _remark(frames: Sequence[Frame]) -> str | None:
    if len({(frame.brightness.window, frame.brightness.curve) for frame in frames}) == 1:
        return None
    return "DICOM windows that change from slice to slice are not taken; --window chooses one"


def _backwards(frames: Sequence[Frame]) -> str | None:
    orders = [frame.order for frame in frames if frame.order is not None]
    if len(set(orders)) < len(frames) or len(frames) < 2 or orders != sorted(orders, reverse=True):
        return None
    return (
        "masks without coordinates have their slices in the order of positions, from feet to head; in some of these "
        "series InstanceNumber runs the other way, so look at the masks on their pictures"
    )


def _affine(frames: Sequence[Frame]) -> NDArray[np.float64] | None:
    """None if slices do not say where they lie."""
    if positions_of(frames) is None:
        return None
    first, last = frames[0], frames[-1]
    assert first.position is not None
    assert last.position is not None
    assert first.axes is not None
    row, column = np.array(first.axes[:3]), np.array(first.axes[3:])
    start, end = np.array(first.position), np.array(last.position)
    found = np.eye(4)
    found[:3, 0], found[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    found[:3, 2] = (end - start) / (len(frames) - 1) if len(frames) > 1 else np.cross(row, column)
    found[:3, 3] = start
    moved: NDArray[np.float64] = LPS_TO_RAS @ found
    return moved


def open_series(folder: Path, kind: Literal["image", "mask"], *, windowed: bool = False) -> Series:
    """The one series in a folder, sorted by position. Raises Unusable, and DataError without pydicom."""
    frames = [frame for path in dicoms_in(folder) for frame in frames_of(path, kind)]
    if len(amount := {frame.series for frame in frames}) > 1:
        raise Unusable(f"{folder}: holds {len(amount)} series; give each a folder of its own", "listing")
    if len({frame.size for frame in frames}) > 1:
        raise Unusable(f"{folder}: slices have different sizes; give each a mask of its own", "listing")
    return Series(in_order(frames, folder), kind, windowed=windowed)


def open_file(path: Path, kind: Literal["image", "mask"], *, windowed: bool = False) -> tuple[Series, list[int]]:
    """The series that a file belongs to, for the brightness of all its slices, and which of them are in this file."""
    own = frames_of(path, kind)
    if kind == "mask" or len({frame.size for frame in own}) > 1:
        return Series(own, kind), list(range(len(own)))
    others = [frame for frame in series_in(path.parent).get(own[0].series, ()) if frame.size == own[0].size]
    if not own[0].series or not any(frame.path == path for frame in others):
        others = own
    series = Series(others, kind, windowed=windowed)
    return series, [number for number, frame in enumerate(series.frames) if frame.path == path]


def decoded(path: Path, kind: str, number: int | None) -> NDArray[np.generic]:
    """Stored pixels of a picture, (H, W), or (H, W, 3) in RGB; without a number of all in the file. Raises Unusable."""
    return _opened(path, kind, number)[0]


def _opened(path: Path, kind: str, number: int | None) -> tuple[NDArray[np.generic], Any]:
    """As `decoded`, with what the file says of its pixels."""
    pydicom, pixels = library("pydicom", EXTRA, path), library("pydicom.pixels", EXTRA, path)
    with reading(path, kind, pydicom.errors.BytesLengthException):
        header = pydicom.Dataset()
        try:
            array: NDArray[np.generic] = pixels.pixel_array(path, index=number, ds_out=header)
        except AttributeError as error:
            raise no_pixels(path, kind) from error
        return (_coloured(array, header, pixels) if kind == "image" else array), header


def _coloured(array: NDArray[np.generic], dataset: Any, pixels: Any) -> NDArray[np.generic]:
    if dataset.get("PhotometricInterpretation") != "PALETTE COLOR":
        return array
    coloured: NDArray[np.generic] = pixels.apply_color_lut(array, dataset)
    return (coloured // 256).astype(np.uint8) if coloured.dtype == np.uint16 else coloured
