"""The same picture as another file: compressed again, smaller, cut out, framed. Its domain is the same afterwards."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
SMALLEST_PX = 16
"""Side below which no picture is cut or shrunk."""


def reencoded(rgb: Picture, quality: int) -> Picture:
    """(H, W, 3) through a JPEG of this quality, 1 to 95."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=quality)
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        return np.array(image.convert("RGB"))


def resized(rgb: Picture, factor: float) -> Picture:
    """(H, W, 3) -> `factor` times as high and wide."""
    height, width = (max(SMALLEST_PX, round(side * factor)) for side in rgb.shape[:2])
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))


def cropped(rgb: Picture, height_share: float, width_share: float, rng: np.random.Generator) -> Picture:
    """A part of (H, W, 3) at random, of these shares of its sides; other shares give another aspect ratio."""
    shares = zip(rgb.shape[:2], (height_share, width_share), strict=True)
    height, width = (min(side, max(SMALLEST_PX, int(side * share))) for side, share in shares)
    top, left = (int(rng.integers(0, side - part + 1)) for side, part in zip(rgb.shape, (height, width), strict=False))
    return rgb[top : top + height, left : left + width]


def framed(rgb: Picture, share: float) -> Picture:
    """(H, W, 3) with this share of its shorter side made black along each edge."""
    edge = max(1, int(min(rgb.shape[:2]) * share))
    picture = np.zeros_like(rgb)
    picture[edge:-edge, edge:-edge] = rgb[edge:-edge, edge:-edge]
    return picture


def copies(rgb: Picture, rng: np.random.Generator) -> list[Picture]:
    """A copy of one picture for each of the WAYS, in their order, at random strength."""
    return [way(rgb, rng) for way in WAYS]


def _cropped_alike(rgb: Picture, share: float, rng: np.random.Generator) -> Picture:
    return cropped(rgb, share, share, rng)


WAYS: Sequence[Callable[[Picture, np.random.Generator], Picture]] = (
    lambda rgb, rng: reencoded(rgb, int(rng.integers(25, 80))),
    lambda rgb, rng: resized(rgb, float(rng.uniform(0.4, 0.9))),
    lambda rgb, rng: _cropped_alike(rgb, float(rng.uniform(0.65, 0.95)), rng),
    lambda rgb, rng: cropped(rgb, float(rng.uniform(0.65, 1)), float(rng.uniform(0.65, 1)), rng),
    lambda rgb, rng: framed(rgb, float(rng.uniform(0.03, 0.12))),
)
