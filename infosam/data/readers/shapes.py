"""COCO's two ways of writing a mask, polygons and run lengths, as pixels (H, W).

Written here because the format's own library trusts its input: run lengths that do not fit the image, or coordinates
that are no numbers, make it read and write outside its memory. Everything is checked before anything is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST_LETTER = 48  # of the compressed run lengths: six bits a letter, from '0'
MAX_LETTERS = 7  # of one number; 35 bits are more than any picture needs
MAX_SIDE_PX = 100_000
MAX_AREA_PX = 180_000_000  # what Pillow opens at most


class BadShape(ValueError):
    """A shape that cannot be drawn; the text says why."""


def check_size(height: Any, width: Any) -> tuple[int, int]:
    """Height and width as a file gives them. Raises BadShape unless they are those of a picture."""
    for name, side in (("height", height), ("width", width)):
        if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= MAX_SIDE_PX:
            raise BadShape(f"{name} is {side!r}, not a number of pixels from 1 to {MAX_SIDE_PX}")
    if height * width > MAX_AREA_PX:
        raise BadShape(f"{width} x {height} px is more than {MAX_AREA_PX // 1_000_000} million pixels")
    return height, width


def check_segmentation(segmentation: Any, size: tuple[int, int]) -> None:
    """Raises BadShape unless `draw` can draw it."""
    if isinstance(segmentation, dict):
        _run_lengths(segmentation, size)
    else:
        _polygons(segmentation)


def draw(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A checked segmentation, polygons or run lengths, as pixels (H, W)."""
    if isinstance(segmentation, dict):
        runs = _run_lengths(segmentation, size)
        values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return np.asarray(values.reshape(size[1], size[0]).T)  # the format goes down the columns
    mask = np.zeros(size, dtype=np.bool_)
    for points in _polygons(segmentation):
        _fill(mask, points)
    return mask


def draw_all(segmentations: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of several checked segmentations, (H, W)."""
    mask = np.zeros(size, dtype=np.bool_)
    for segmentation in segmentations:
        mask |= draw(segmentation, size)
    return mask


def decode_counts(text: str) -> list[int]:
    """Run lengths from COCO's compressed text: five bits a letter, the low ones first, a sixth says that more follow;
    from the fourth number on, each is stored as difference to the last but one. Raises BadShape."""
    counts: list[int] = []
    value = letters = 0
    for letter in text:
        bits = ord(letter) - FIRST_LETTER
        if not 0 <= bits < 64 or letters == MAX_LETTERS:
            raise BadShape(f"the compressed run lengths hold {letter!r} where it cannot be")
        value |= (bits & 31) << (5 * letters)
        letters += 1
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << (5 * letters)
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = letters = 0
    if letters:
        raise BadShape("the compressed run lengths are cut short")
    return counts


def _run_lengths(rle: dict[str, Any], size: tuple[int, int]) -> NDArray[np.int64]:
    given = rle.get("size")
    if not isinstance(given, list) or given != list(size):
        raise BadShape(f"the run lengths are of a picture of [height, width] {given!r}, the image has {list(size)}")
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = decode_counts(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise BadShape("the run lengths are not a list of numbers of pixels, nor compressed text")
    if sum(counts) != size[0] * size[1]:
        raise BadShape(f"the run lengths add up to {sum(counts)} px, the image has {size[0] * size[1]}")
    return np.array(counts, dtype=np.int64)


def _polygons(segmentation: Any) -> list[NDArray[np.float64]]:
    """Corner points (N, 2) of each polygon, x before y."""
    if not isinstance(segmentation, list) or not segmentation:
        raise BadShape("it has no outline (`segmentation` is empty), perhaps only a box")
    if all(_is_number(value) for value in segmentation):
        segmentation = [segmentation]  # some tools leave the outer list away
    polygons = []
    for outline in segmentation:
        if not isinstance(outline, list) or not all(_is_number(value) for value in outline):
            raise BadShape("an outline is not a list of finite numbers x, y, x, y, ...")
        if len(outline) < 6 or len(outline) % 2:
            raise BadShape(f"an outline has {len(outline)} numbers; at least three points, an even number, are needed")
        polygons.append(np.array(outline, dtype=np.float64).reshape(-1, 2))
    if 0 < max(float(np.abs(points).max()) for points in polygons) <= 1:
        raise BadShape("all its points lie in the first pixel; points are in pixels, not in shares of the image")
    return polygons


def _is_number(value: Any) -> bool:
    # Whole numbers of any length are numbers in JSON; beyond 1e9 no picture reaches, and floats would overflow.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and math.isfinite(value)


def _fill(mask: NDArray[np.bool_], points: NDArray[np.float64]) -> None:
    """Sets the pixels of `mask` (H, W) whose centres lie in a polygon, by the even-odd rule.

    Where an edge crosses a row's centre line, the pixels right of it change sides; a running sum counts the changes."""
    height, width = mask.shape
    top = max(0, math.ceil(points[:, 1].min() - 0.5))
    bottom = min(height, math.ceil(points[:, 1].max() - 0.5))
    if top >= bottom:
        return
    rows: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.float64]] = []
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        first = max(top, math.ceil(min(y0, y1) - 0.5))
        last = min(bottom, math.ceil(max(y0, y1) - 0.5))
        if first < last:
            crossed = np.arange(first, last)
            rows.append(crossed - top)
            columns.append(x0 + (crossed + 0.5 - y0) * ((x1 - x0) / (y1 - y0)))
    changes = np.zeros((bottom - top, width + 1), dtype=np.int32)
    at = np.clip(np.ceil(np.concatenate(columns) - 0.5), 0, width).astype(np.int64)
    np.add.at(changes, (np.concatenate(rows), at), 1)
    mask[top:bottom] |= (np.cumsum(changes, axis=1)[:, :width] & 1).astype(np.bool_)
