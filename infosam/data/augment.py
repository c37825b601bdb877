"""Joint augmentation of an image and its masks: flips, rotation, scale and colour, drawn from an explicit generator.

Works at the size of the resized image, before normalisation and padding, so padding never moves into the picture.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from infosam.config import AugmentConfig

Rgb = NDArray[np.uint8]
Masks = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


def augment(rgb: Rgb, masks: Masks, config: AugmentConfig, rng: np.random.Generator) -> tuple[Rgb, Masks, int]:
    """An altered copy of an image (h, w, 3) and its masks (K, h, w), of the same size, and which way it is mirrored.

    With flips alone that number says all about the copy: it is what `mirrored` makes for it.

    Where an object would leave the frame altogether, the geometry stays as it was. The generator advances by the
    same amount whatever the configuration, so switching one kind on leaves the draws of the others alone."""
    flips, angle, scale = rng.random(2), rng.uniform(-1, 1), rng.uniform(-1, 1)
    colour = rng.uniform(-1, 1, 3)
    rows, columns = (flips < config.flip).tolist()
    variant = 2 * rows + columns
    picture, moved = mirrored(rgb, variant), mirrored(masks.transpose(1, 2, 0), variant).transpose(2, 0, 1)
    if config.rotation_deg or config.scale:
        factor = (1 + config.scale) ** scale
        picture, moved = _rotate_and_scale(picture, moved, float(angle) * config.rotation_deg, float(factor))
    if (masks.any(axis=(1, 2)) & ~moved.any(axis=(1, 2))).any():
        picture, moved, variant = rgb, masks, 0
    return _recolour(picture, 1 + config.colour * colour), moved, variant


def mirrored(pixels: NDArray[Scalar], variant: int) -> NDArray[Scalar]:
    """Pixels (h, w, ...) in one of the `FLIPS` ways to mirror them; 0 leaves them as they are."""
    rows, columns = (slice(None, None, -1 if turned else 1) for turned in divmod(variant, 2))
    return pixels[rows, columns]


def _rotate_and_scale(rgb: Rgb, masks: Masks, degrees: float, factor: float) -> tuple[Rgb, Masks]:
    """About the centre; what comes from outside the frame is the image's mean colour, and no object."""
    height, width = rgb.shape[:2]
    cos, sin = np.cos(np.radians(degrees)) / factor, np.sin(np.radians(degrees)) / factor
    x, y = width / 2, height / 2
    matrix = (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)

    def move(pixels: NDArray[np.uint8], fill: tuple[int, ...] | int) -> NDArray[np.uint8]:
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        return np.array(
            picture.transform(
                (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill
            )
        )

    mean = tuple(int(channel) for channel in rgb.reshape(-1, 3).mean(axis=0).round())
    return move(rgb, mean), np.stack([move(mask.astype(np.uint8) * 255, 0) >= 128 for mask in masks])


def _recolour(rgb: Rgb, factors: NDArray[np.float64]) -> Rgb:
    """Brightness, contrast and saturation times a factor each; factors of 1 leave every byte as it is."""
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    for enhancer, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        if factor != 1:
            picture = enhancer(picture).enhance(float(factor))
    return np.array(picture)
