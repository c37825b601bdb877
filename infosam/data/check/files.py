"""What is looked for in one image and its mask: each kind of finding is one small function in a table."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infosam.data.check.near import thumbnail_of
from infosam.data.masks import Unusable, has_void
from infosam.data.pairs import Listed, MaskChoice
from infosam.data.pixels import Claim, Drawing, Picture, open_both
from infosam.data.threads import Room

HUGE_PX = 16_000_000
SAMPLED_PX = 16  # a side, to tell a photograph from a drawing
FAINT_SPAN, FAINT_PERCENT = 16, (1, 99)  # of 255: what nearly all pixels of a picture lie in
FAINT_PX = 256  # looked at along each side
INVERTED_BORDER = 0.8  # share of border pixels that are object
SURVIVING = 0.5  # of the area of an object, at the resolution of the model's masks
MIB = 1 << 20
_ROOM = Room(100_000_000)  # px of huge pictures at one time; each takes about 15 bytes


@dataclass(frozen=True)
class Opened:
    """A pair that could be opened."""

    pair: Listed
    picture: Picture
    drawing: Drawing
    mask: NDArray[np.bool_]  # (H, W), all objects of the file
    mask_px: int  # longest side of the model's masks
    choice: MaskChoice


@dataclass(frozen=True)
class Facts:
    """What is kept of a pair: little, for there may be many."""

    found: tuple[tuple[str, str], ...]  # (kind, what)
    absent: bool = False  # it has no pixel of the chosen class, so an import leaves it out
    share: float | None = None  # of foreground; None if the pair cannot be opened
    sha256: bytes = b""  # of the image file
    thumbnail: NDArray[np.uint8] | None = None  # of `near`; None also if the picture is all of one tone
    value: tuple[str, float] | None = None  # mode of the mask and its one value that is object, if that is not chosen


def look(pair: Listed, choice: MaskChoice, mask_px: int, *, allow_empty: bool = False) -> Facts:
    """Everything found in one pair. Never raises for bad files."""
    with _room_for_huge() as claim:
        try:
            picture, drawing = open_both(pair, choice, claim)
        except Unusable as problem:
            return Facts((*((one.kind, str(one)) for one in problem.each), *_named(pair)))
        mask = drawing.masks[0] if len(drawing.masks) == 1 else np.logical_or.reduce(drawing.masks)
        thumbnail = thumbnail_of(picture.rgb)
        opened = Opened(pair, picture, drawing, mask, mask_px, choice)
        found = [(kind, what) for kind, test in PAIR_CHECKS.items() if (what := test(opened))]
        if choice.classes:  # an import leaves out images without the class
            lacking = ("absent", f"{pair.mask.name}: no pixel of --class {' '.join(choice.classes)}")
            found = [lacking if one[0] == "blank" else one for one in found if one[0] != "mask-levels"]
        return Facts(
            found=(*(one for one in found if not (allow_empty and one[0] == "blank")), *_named(pair)),
            absent=any(kind == "absent" for kind, _ in found),
            share=float(mask.mean()),
            sha256=hashlib.sha256(picture.source).digest(),
            thumbnail=thumbnail if np.ptp(thumbnail) > 8 else None,
            value=_value(drawing) if not choice.classes else None,
        )


@contextmanager
def _room_for_huge() -> Iterator[Claim]:
    """Lets a huge picture be decoded when other threads do not hold too much: many at once would fill the memory."""
    taken = 0

    def claim(size: tuple[int, int]) -> None:
        nonlocal taken
        if (pixels := size[0] * size[1]) > HUGE_PX and not taken:
            taken = _ROOM.take(pixels)

    try:
        yield claim
    finally:
        _ROOM.give_back(taken)


def _value(drawing: Drawing) -> tuple[str, float] | None:
    objects = [value for value in drawing.values if value]
    return (drawing.mode, objects[-1]) if objects and len(drawing.values) <= 2 else None


def _blank(opened: Opened) -> str:
    return "" if opened.mask.any() else f"{opened.pair.mask}: the mask is empty (no foreground pixel)"


def _full(opened: Opened) -> str:
    return f"{opened.pair.mask.name}: every pixel is object" if opened.mask.all() else ""


def _inverted(opened: Opened) -> str:
    mask = opened.mask
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    if opened.drawing.swapped:
        return f"{opened.pair.mask.name}: its palette shows the object, the higher index, black on white"
    if mask.all() or border < INVERTED_BORDER:
        return ""
    return f"{opened.pair.mask.name}: {border:.0%} of the border and {mask.mean():.0%} of all pixels are object"


def _own_mask(opened: Opened) -> str:
    if not opened.picture.mode or not _shows_only(opened.picture.rgb, opened.mask):
        return ""
    return f"{opened.pair.image.name}: a drawing of its own mask {opened.pair.mask.name}"


def _shows_only(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> bool:
    """Whether a picture (H, W, 3) has one colour where its mask (H, W) is and another where it is not."""
    few = rgb[:: max(1, len(rgb) // SAMPLED_PX), :: max(1, rgb.shape[1] // SAMPLED_PX)].reshape(-1, 3)
    others = few[(few != few[0]).any(axis=1)]
    if (others != others[:1]).any():  # a photograph: nothing else has to be looked at
        return False
    inside, outside = rgb[mask], rgb[~mask]
    if not len(inside) or not len(outside) or (inside[0] == outside[0]).all():
        return False
    return bool((inside == inside[0]).all() and (outside == outside[0]).all())


def _thin(opened: Opened) -> str:
    height, width = opened.mask.shape
    scale = opened.mask_px / max(height, width)
    if scale >= 1 or not opened.mask.any():
        return ""
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    cover = np.asarray(Image.fromarray(opened.mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX))
    surviving = float(cover[cover >= 128].sum() / max(1, cover.sum()))
    if surviving >= SURVIVING:
        return ""
    return f"{opened.pair.mask.name}: {1 - surviving:.0%} of the object vanish at {opened.mask_px} px"


def _huge(opened: Opened) -> str:
    height, width = opened.mask.shape
    if height * width <= HUGE_PX:
        return ""
    return f"{opened.pair.image.name}: {width} x {height} px, {height * width * 4 / MIB:.0f} MiB once decoded"


def _faint(opened: Opened) -> str:
    rgb = opened.picture.rgb
    step = max(1, max(rgb.shape[:2]) // FAINT_PX)
    low, high = np.percentile(rgb[::step, ::step], FAINT_PERCENT)
    if high - low >= FAINT_SPAN:
        return ""
    return f"{opened.pair.image.name}: nearly all of its values, as they are shown, are {low:.0f} to {high:.0f} of 255"


def _is_deep(picture: Picture) -> bool:
    return picture.mode in ("I", "F") or ";16" in picture.mode


def _sixteen_bit(opened: Opened) -> str:
    return f"{opened.pair.image.name}: mode {opened.picture.mode}" if _is_deep(opened.picture) else ""


def _cmyk(opened: Opened) -> str:
    return f"{opened.pair.image.name}: mode CMYK" if opened.picture.mode == "CMYK" else ""


def _alpha(opened: Opened) -> str:
    return f"{opened.pair.image.name}: has transparency" if opened.picture.transparent else ""


def _exif(opened: Opened) -> str:
    return f"{opened.pair.image.name}: to be turned" if opened.picture.rotated else ""


def _exif_mask(opened: Opened) -> str:
    height, width = opened.mask.shape
    if not opened.picture.rotated or (opened.picture.orientation > 4 and height != width):
        return ""
    return f"{opened.pair.image.name}: turned, and the mask would have the same size if it was drawn before that"


def _mask_jpeg(opened: Opened) -> str:
    return f"{opened.pair.mask.name}: a JPEG" if opened.drawing.format == "JPEG" else ""


def _mask_palette(opened: Opened) -> str:
    return f"{opened.pair.mask.name}: has a palette" if opened.drawing.mode == "P" else ""


def _mask_levels(opened: Opened) -> str:
    values = opened.drawing.values
    odd = opened.drawing.mode == "L" and len(values) <= 2 and not set(values) <= {0.0, 255.0}
    return f"{opened.pair.mask.name}: values {', '.join(f'{value:g}' for value in values)}" if odd else ""


def _mask_void(opened: Opened) -> str:
    if opened.choice.classes or not opened.choice.instances or not has_void(opened.drawing.values):
        return ""
    return (
        f"{opened.pair.mask.name}: 255 beside labels from {opened.drawing.values[0]:g} to {opened.drawing.values[-2]:g}"
    )


PAIR_CHECKS: Mapping[str, Callable[[Opened], str]] = {
    "blank": _blank,
    "full": _full,
    "inverted": _inverted,
    "own-mask": _own_mask,
    "thin": _thin,
    "huge": _huge,
    "faint": _faint,
    "sixteen-bit": _sixteen_bit,
    "cmyk": _cmyk,
    "alpha": _alpha,
    "exif": _exif,
    "exif-mask": _exif_mask,
    "mask-jpeg": _mask_jpeg,
    "mask-palette": _mask_palette,
    "mask-levels": _mask_levels,
    "mask-void": _mask_void,
}


def _named(pair: Listed) -> tuple[tuple[str, str], ...]:
    """Names that other tools stumble over: control characters, spaces at the ends, letters not in their one form."""
    odd = []
    for path in (pair.image, pair.mask):
        name = path.name
        if re.search(r"[\x00-\x1f\x7f]", name):
            odd.append(("name", f"{name!r}: a control character, such as a new line"))
        elif name != name.strip() or path.stem != path.stem.strip():
            odd.append(("name", f"{name!r}: a space at an end"))
        elif name != unicodedata.normalize("NFC", name):
            odd.append(("name", f"{name!r}: accents as letters of their own; other systems write the name otherwise"))
    return tuple(dict.fromkeys(odd))
