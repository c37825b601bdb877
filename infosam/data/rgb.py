"""Any picture as red, green and blue. Knows no torch: who imports or checks a data set needs seconds less to start."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

EXIF_ORIENTATION = 0x0112
TURNED = range(2, 9)  # orientations other than upright


def upright(image: Image.Image) -> Image.Image:
    """The picture, turned as its EXIF says; itself, not a copy, if that says nothing. Raises what Pillow raises."""
    image.load()
    return ImageOps.exif_transpose(image) if is_turned(image) else image


def is_turned(image: Image.Image) -> bool:
    """Whether EXIF asks for a rotation."""
    return image.getexif().get(EXIF_ORIENTATION, 1) in TURNED


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Any picture as (H, W, 3) uint8 RGB, upright (EXIF rotation applied), transparency laid over black.

    Integers above 255 and floats (16-bit, 32-bit, float files) are stretched linearly from their own minimum and
    maximum to 0..255, because such files rarely use their full range; files within 0..255 keep their values."""
    image = upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = _to_8_bit(np.asarray(image))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        ground = Image.new("RGBA", opaque.size, (0, 0, 0, 255))
        image = Image.alpha_composite(ground, opaque)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _to_8_bit(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = np.nan_to_num(grey.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 255 and np.issubdtype(grey.dtype, np.integer):
        return values.astype(np.uint8)
    return np.rint((values - low) * (255.0 / (high - low if high > low else 1.0))).astype(np.uint8)
