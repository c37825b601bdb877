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
VOID = 255  # what label maps write where nobody decided, such as the borders in Pascal VOC
FEW_LABELS = 32  # labels are counted from 1; greys that a person draws objects in are spread wider
MAX_GREY = 65_535  # values of masks beyond are colours
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
    values: NDArray[np.generic], choice: MaskChoice, path: Path, whole: Sequence[float]
) -> list[NDArray[np.bool_]]:
    """The masks (H, W) that the values of one file stand for; at least one, perhaps without foreground.

    `whole` are the sorted distinct values of the file, of which `values` may be a part: a slice that has only one of
    two values does not say which one is the object. Raises Unusable as `object_values`."""
    chosen = object_values(whole, choice, path, values)
    if choice.instances and not choice.classes and len(whole) > 2:
        here = distinct(values)
        return [np.asarray(values == value, np.bool_) for value in here if value in chosen] or [
            np.zeros(values.shape, np.bool_)
        ]
    foreground = np.asarray(values == chosen[0], np.bool_) if len(chosen) == 1 else np.isin(values, chosen)
    return regions(foreground) if choice.instances else [foreground]


def object_values(
    found: Sequence[float], choice: MaskChoice, path: Path, values: NDArray[np.generic]
) -> tuple[float, ...]:
    """Those of the sorted values `found` in a file that are object; `values` are some of its pixels.

    Without a choice the file must have at most two values: 0 and that of the object, or almost black and almost white.
    Raises Unusable if it has more, or two others."""
    if choice.classes:
        chosen = tuple(class_value(word) for word in choice.classes)
        if is_smeared(values, found):  # the one value would be an object with holes
            raise _not_binary(path, values, found)
        return chosen
    objects = tuple(value for value in found if value != 0)
    if len(objects) == len(found) == 2 and not (found[0] in NEARLY_BLACK and found[1] in NEARLY_WHITE):
        low, high = map(shown_value, found)
        text = f"{path}: the mask has the values {low} and {high} and no 0, so which is the object is not known"
        raise Unusable(f"{text}; choose it with --class {high} or --class {low}", "mask-values")
    if len(found) <= 2:
        return objects[-1:]
    if choice.instances and not is_smeared(values, found):
        return objects[: len(objects) - has_void(found)]
    raise _not_binary(path, values, found)


def has_void(found: Sequence[float]) -> bool:
    """Whether the highest of the sorted values is 255 beside few labels: it is no object, but means "ignore"."""
    labels = [value for value in found if value not in (0, VOID)]
    counted = labels == list(range(1, len(labels) + 1)) or bool(labels and labels[-1] < FEW_LABELS)
    return bool(labels) and found[-1] == VOID and counted


def shown_value(value: float) -> str:
    """A value as --class takes it: a number, or a colour that a shell leaves alone."""
    return f"'#{int(value):06x}'" if value > MAX_GREY else f"{value:g}"


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
    colours = found[-1] > MAX_GREY
    shown = ", ".join(f"#{int(one):06x}" if colours else f"{one:g}" for one in found[:MAX_LISTED_VALUES]) + more
    text = f"{path}: the mask has {len(found)} different values ({shown}) where two are expected"
    if is_smeared(values, found):
        all_at_once = "infosam data check SRC --fix DIR does it for all"
        return Unusable(
            f"{text}; it looks smeared by JPEG: threshold it at 127 and save it as PNG; {all_at_once}", "mask-smeared"
        )
    cure = "save one mask per object or class, background 0 and object 255, or choose one with --class VALUE"
    return Unusable(f"{text}; {cure}", "mask-values")
