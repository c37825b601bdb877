"""From values of any kind to 0..255: one range for a whole scene, volume or series, so that its parts look alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from infosam.data.formats.contract import KEPT, Box, Levels, Stack

LOW_PERCENT, HIGH_PERCENT = 0.5, 99.5
MAX_PICTURES = 64  # of a stack that are looked at, evenly spaced
MAX_VALUES = 4_000_000  # of each band
WHITE = 255
BRIGHT = 0.5  # of 1; reflectances of the ground stay below
ROWS = 512  # that are computed at a time


def levels_of(stack: Stack, window: tuple[float, float] | None) -> Levels:
    """The user's window, else the file's own range, else percentiles of all its pictures."""
    if window is not None:
        centre, width = window
        levels: Levels = ((centre - width / 2, centre + width / 2),)
    else:
        levels = measured(stack) if stack.levels is None else stack.levels
    return tuple((high, low) for low, high in levels) if stack.inverted else levels


def measured(stack: Stack) -> Levels:
    """Percentiles 0.5 and 99.5 of each band over at most `MAX_PICTURES` pictures and `MAX_VALUES` values, evenly
    spaced, without NaN and infinities. Raises Unusable."""
    amount = min(stack.count, MAX_PICTURES)
    height, width = stack.size
    step = max(1, int(np.ceil(np.sqrt(height * width * amount / MAX_VALUES))))
    whole = Box(0, 0, height, width)
    chosen = [number * stack.count // amount for number in range(amount)]
    seen = [np.atleast_3d(stack.values(number, whole, step)) for number in chosen]
    if stack.photo and (kept := _of_photo(seen)) is not None:
        return kept
    levels = []
    for band in range(seen[0].shape[2]):
        values = np.concatenate([picture[:, :, band].ravel() for picture in seen]).astype(np.float64)
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, [LOW_PERCENT, HIGH_PERCENT]) if values.size else (0.0, 0.0)
        if low == high and values.size:  # little but one value, such as a few bright spots on black
            low, high = values.min(), values.max()
        levels.append((float(low), float(high)))
    return tuple(levels)


def _of_photo(seen: Sequence[NDArray[np.generic]]) -> Levels | None:
    """The range of colours that are bytes in a wider type, or bytes divided by 255: stretched one by one they would be
    other colours than those of the same picture in a PNG. None for all others."""
    values = np.concatenate([picture.ravel() for picture in seen])
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > WHITE:
        return None
    if np.array_equal(values, np.rint(values)) and values.max() > 1:
        return ((0.0, float(WHITE)),)
    bright = values.max() <= 1 and np.percentile(values, HIGH_PERCENT) > BRIGHT
    return ((0.0, 1.0),) if bright else None


def to_8_bit(values: NDArray[np.generic], levels: Levels) -> NDArray[np.uint8]:
    """(h, w) or (h, w, 3) with the levels at 0 and 255, everything beyond cut off, nothing (NaN) as 0."""
    if levels == KEPT:
        return values.astype(np.uint8) * np.uint8(255 if values.dtype == np.bool_ else 1)
    low, high = (np.array(ends, np.float64) for ends in zip(*levels, strict=True))
    span = np.where(high == low, 1.0, high - low)
    shown = np.empty(np.atleast_3d(values).shape, np.uint8)
    for top in range(0, len(values), ROWS):  # as floats a whole scene would need eight times its memory
        rows = np.atleast_3d(values)[top : top + ROWS].astype(np.float64)
        shown[top : top + ROWS] = np.rint(np.nan_to_num(np.clip((rows - low) / span, 0, 1)) * 255)
    return shown.reshape(values.shape)
