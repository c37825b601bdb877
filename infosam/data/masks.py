"""From the values in a mask file to objects: two values, one or several classes of a label map, or single objects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infosam.data.pairs import MaskChoice
from infosam.errors import DataError

MAX_LISTED_VALUES = 6
MIN_REGION_PX = 4  # smaller connected regions are specks of a brush, not objects
NEARLY_BLACK, NEARLY_WHITE = range(17), range(239, 256)
COUNTED_PX = 1 << 20


class Unusable(Exception):
    """A file or a pair of files cannot be used; the text names the file, the reason and the cure.

    `kind` is its name in the table of `check.findings`; of several problems in one, `each` has them singly."""

    def __init__(self, text: str, kind: str = "damaged", each: Sequence[Unusable] = ()) -> None:
        super().__init__(text)
        self.kind = kind
        self.each: tuple[Unusable, ...] = tuple(each) or (self,)


def mask_values(image: Image.Image, path: Path, *, colours: bool = False) -> NDArray[np.generic]:
    """(H, W) values of a mask; colours are told apart as numbers rrggbb, palette masks by their index, unless
    `colours` asks for the colours of everything. A grey picture that was saved in colours is grey."""
    if image.mode in ("RGBA", "LA", "PA") and np.asarray(image.getchannel("A")).min() < 255:
        text = f"{path}: the mask has transparent pixels; save it without alpha, background 0 and object 255"
        raise Unusable(text, "mask-alpha")
    if image.mode in ("LA", "PA"):
        image = image.getchannel(0)
    if not colours and (image.mode in ("1", "L", "P", "I", "F") or image.mode.startswith("I;16")):
        return np.asarray(image)
    red, green, blue = (np.asarray(channel) for channel in image.convert("RGB").split())
    if not colours and np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    return red.astype(np.int32) * 65536 + green.astype(np.int32) * 256 + blue


def distinct(values: NDArray[np.generic]) -> list[float]:
    """Sorted distinct values."""
    if values.dtype == np.uint8:  # counting is ten times faster than sorting; a few rows at once, for it copies
        rows = max(1, COUNTED_PX // max(1, values.shape[-1]))
        parts = (values[start : start + rows].ravel() for start in range(0, len(values), rows))
        counted = sum((np.bincount(part, minlength=256) for part in parts), np.zeros(256, np.int64))
        return [float(value) for value in np.flatnonzero(counted)]
    if values.dtype.kind in "iu" and values.size:
        low, high = int(values.min()), int(values.max())
        if high - low < values.size:
            above = values - values.min() if values.dtype.kind == "u" else values.astype(np.int64) - low
            counts = np.bincount(above.ravel().astype(np.int64))
            return [float(int(value) + low) for value in np.flatnonzero(counts)]
    elif not values.any():
        return [0.0] * bool(values.size)
    return [float(value) for value in np.unique(values)]


def objects_of(
    values: NDArray[np.generic], choice: MaskChoice, path: Path, whole: Sequence[float] | None = None
) -> list[NDArray[np.bool_]]:
    """The masks (H, W) that the values of one file stand for; at least one, perhaps without foreground.

    `whole` are the values of the file if this is a part of it: a slice that has only one of two values does not say
    which one is the object. Raises Unusable as `object_values`."""
    found = distinct(values)
    chosen = object_values(found if whole is None else whole, choice, path, values)
    if choice.instances and not choice.classes and len(found if whole is None else whole) > 2:
        return [np.asarray(values == value, np.bool_) for value in found if value in chosen] or [
            np.zeros(values.shape, np.bool_)
        ]
    foreground: NDArray[np.bool_] = np.isin(values, chosen)
    return regions(foreground) if choice.instances else [foreground]


def object_values(
    found: Sequence[float], choice: MaskChoice, path: Path, values: NDArray[np.generic]
) -> tuple[float, ...]:
    """Those of the sorted values `found` in a file that are object; `values` are some of its pixels.

    Without a choice the file must have at most two values, and the higher one is the object, never 0. Raises Unusable
    if it has more."""
    if choice.classes:
        return tuple(class_value(word) for word in choice.classes)
    objects = tuple(value for value in found if value != 0)
    if len(found) <= 2:
        return objects[-1:]
    if choice.instances and not is_smeared(values, found):
        return objects
    raise _not_binary(path, values, found)


def named_by_colour(choice: MaskChoice) -> bool:
    """Whether classes are given as colours. Raises DataError for a mixture of colours and numbers, or other words."""
    colours = {word.startswith("#") for word in choice.classes if class_value(word) is not None}
    if len(colours) > 1:
        raise DataError(f"--class {' and '.join(choice.classes)}: give either values or colours, not both")
    return True in colours


def class_value(word: str) -> float:
    """The value that a user's word stands for: a number or a colour #rrggbb. Raises DataError."""
    if colour := re.fullmatch(r"#([0-9a-fA-F]{6})", word.strip()):
        return float(int(colour[1], 16))
    try:
        return float(word)
    except ValueError:
        raise DataError(
            f"--class {word!r}: pictures of masks have values, not names; give a number such as 3, or a colour "
            "such as '#ff0000'"
        ) from None


def regions(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Connected regions (8 neighbours) of a mask (H, W), specks below `MIN_REGION_PX` left out; the mask itself if
    nothing remains."""
    from scipy import ndimage  # takes a while to load, and only --instances needs it

    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = [number for number in range(1, count + 1) if sizes[number] >= MIN_REGION_PX]
    return [labels == number for number in kept] or [mask]


def is_smeared(values: NDArray[np.generic], found: Sequence[float]) -> bool:
    """Whether many values come from JPEG: it spreads white a little below 255; label maps have their few values far
    from it (255 is their "ignore")."""
    if values.dtype != np.uint8 or not any(239 <= value < 255 for value in found):
        return False
    return bool(np.isin(values, [*NEARLY_BLACK, *NEARLY_WHITE]).mean() > 0.95)


def _not_binary(path: Path, values: NDArray[np.generic], found: Sequence[float]) -> Unusable:
    more = ", ..." if len(found) > MAX_LISTED_VALUES else ""
    shown = ", ".join(f"{value:g}" for value in found[:MAX_LISTED_VALUES]) + more
    text = f"{path}: the mask has {len(found)} different values ({shown}) where two are expected"
    if is_smeared(values, found):
        return Unusable(f"{text}; it looks smeared by JPEG: threshold it at 127 and save it as PNG", "mask-smeared")
    cure = "save one mask per object or class, background 0 and object 255, or choose one with --class VALUE"
    return Unusable(f"{text}; {cure}", "mask-values")
