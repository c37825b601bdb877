"""What is looked for in one image and its mask: each kind of finding is one small function in a table."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infosam.data.masks import Unusable, has_void
from infosam.data.pairs import Listed, MaskChoice
from infosam.data.pixels import Drawing, Picture, open_both

HUGE_PX = 16_000_000
INVERTED_BORDER = 0.9  # share of border pixels that are object
FAINT_SPAN, FAINT_PERCENT = 16, (1, 99)  # of 255: what nearly all pixels of a picture lie in
FAINT_PX = 256  # looked at along each side
SURVIVING = 0.5  # of the area of an object, at the resolution of the model's masks
MIB = 1 << 20
HASH_SIDE, GREY_SIDE = 8, 16


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
    share: float | None = None  # of foreground; None if the pair cannot be opened
    sha256: bytes = b""  # of the image file
    fingerprint: int = 0  # 64 bits: where brightness rises from left to right
    grey: bytes = b""  # the picture at 16 x 16 px; empty if it is all of one tone
    value: tuple[str, float] | None = None  # mode of the mask and its one value that is object, if that is not chosen


def look(pair: Listed, choice: MaskChoice, mask_px: int, *, allow_empty: bool = False) -> Facts:
    """Everything found in one pair. Never raises for bad files."""
    try:
        picture, drawing = open_both(pair, choice)
    except Unusable as problem:
        return Facts(((problem.kind, str(problem)), *_named(pair)))
    mask = drawing.masks[0] if len(drawing.masks) == 1 else np.logical_or.reduce(drawing.masks)
    opened = Opened(pair, picture, drawing, mask, mask_px, choice)
    found = [(kind, what) for kind, test in PAIR_CHECKS.items() if (what := test(opened))]
    fingerprint, grey = fingerprint_of(picture.rgb)
    return Facts(
        found=(*(one for one in found if not (allow_empty and one[0] == "blank")), *_named(pair)),
        share=float(mask.mean()),
        sha256=hashlib.sha256(picture.source).digest(),
        fingerprint=fingerprint,
        grey=grey,
        value=_value(drawing) if not choice.classes else None,
    )


def _value(drawing: Drawing) -> tuple[str, float] | None:
    objects = [value for value in drawing.values if value]
    return (drawing.mode, objects[-1]) if objects and len(drawing.values) <= 2 else None


def fingerprint_of(rgb: NDArray[np.uint8]) -> tuple[int, bytes]:
    """Difference hash of a picture (H, W, 3), 64 bits, and its grey values at 16 x 16, empty if it has one tone only.

    Survives scaling, compression and small changes of brightness, not crops or turns."""
    small = Image.fromarray(rgb).convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX)
    tones = np.asarray(small.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BILINEAR), dtype=np.int16)
    bits = (tones[:, 1:] > tones[:, :-1]).ravel()
    grey = np.asarray(small)
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), grey.tobytes() if np.ptp(grey) > 8 else b""


def _blank(opened: Opened) -> str:
    return "" if opened.mask.any() else f"{opened.pair.mask}: the mask is empty (no foreground pixel)"


def _full(opened: Opened) -> str:
    return f"{opened.pair.mask.name}: every pixel is object" if opened.mask.all() else ""


def _inverted(opened: Opened) -> str:
    mask = opened.mask
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    if mask.all() or mask.mean() < 0.5 or border < INVERTED_BORDER:
        return ""
    return f"{opened.pair.mask.name}: {border:.0%} of the border and {mask.mean():.0%} of all pixels are object"


def _thin(opened: Opened) -> str:
    height, width = opened.mask.shape
    scale = opened.mask_px / max(height, width)
    if scale >= 1 or not opened.mask.any():
        return ""
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    cover = np.asarray(Image.fromarray(opened.mask.astype(np.float32)).resize(size, Image.Resampling.BOX))
    surviving = float(cover[cover >= 0.5].sum() / cover.sum())
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


def _sixteen_bit(opened: Opened) -> str:
    mode = opened.picture.mode
    return f"{opened.pair.image.name}: mode {mode}" if mode in ("I", "F") or ";16" in mode else ""


def _cmyk(opened: Opened) -> str:
    return f"{opened.pair.image.name}: mode CMYK" if opened.picture.mode == "CMYK" else ""


def _alpha(opened: Opened) -> str:
    return f"{opened.pair.image.name}: has transparency" if opened.picture.transparent else ""


def _exif(opened: Opened) -> str:
    return f"{opened.pair.image.name}: to be turned" if opened.picture.rotated else ""


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
    "thin": _thin,
    "huge": _huge,
    "faint": _faint,
    "sixteen-bit": _sixteen_bit,
    "cmyk": _cmyk,
    "alpha": _alpha,
    "exif": _exif,
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
