"""Scenes to pre-train on: many overlapping shapes on textured ground, lit, blurred and noisy, with a mask for each.

Scene number i of a seed is always the same picture, whatever was made before it, so a run can resume anywhere.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from infosam.synthetic.shapes import Mask, random_shape
from infosam.synthetic.textures import Field, colourise, crop, make_bank, smooth_field

BANK_SIZE = 240
MIN_SHARE, MAX_SHARE = 0.01, 0.8  # of the frame that a usable mask covers; a token is 0.4 % of a 128 px canvas
NARROWEST = 0.55  # short side of a frame over its long side


@dataclass(frozen=True)
class Scene:
    """A picture (H, W, 3) uint8 RGB whose long side is S, and the visible masks (K, H, W) of its objects, K >= 1."""

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]


class SceneMaker:
    """Makes scene number i of a seed. Textures are drawn once and cut differently for every object."""

    def __init__(self, side_px: int, *, seed: int) -> None:
        self.side_px = side_px
        self.seed = seed
        self._bank = make_bank(BANK_SIZE, np.random.default_rng([seed, 0]))

    def __call__(self, index: int) -> Scene:
        """Scene number `index`; tries again, deterministically, where no object is large enough to prompt for."""
        for attempt in range(100):
            rng = np.random.default_rng([self.seed, 1, index, attempt])
            frame = _frame(self.side_px, rng)
            image, masks = self._compose(rng)
            image, masks = image[frame], [mask[frame] for mask in masks]
            usable = [mask for mask in masks if MIN_SHARE <= mask.mean() <= MAX_SHARE]
            if usable:
                return Scene(image=_photograph(image, rng), masks=np.stack(usable))
        raise AssertionError("no usable scene in 100 attempts: the shares of shapes are wrong")

    def _compose(self, rng: np.random.Generator) -> tuple[Field, list[Mask]]:
        side = self.side_px
        ground = rng.random(3, dtype=np.float32)
        image = self._surface(ground, rng)
        masks: list[Mask] = []
        if rng.random() < 0.25:
            image, masks = self._patchwork(image, rng)
        for _ in range(int(rng.integers(2, 8))):
            silhouette = random_shape(side, rng)
            if not silhouette.any():
                continue
            paint = self._paint(image, silhouette, ground, rng)
            image = _blend(image, paint, silhouette, rng)
            masks = [mask & ~silhouette for mask in masks]
            masks.append(silhouette)
            masks += self._mark(image, silhouette, rng)
        return image, masks

    def _surface(self, colour: Field, rng: np.random.Generator) -> Field:
        """A textured sheet (S, S, 3) around one colour."""
        contrast = rng.uniform(0.02, 0.5)
        other = np.clip(colour + rng.normal(size=3) * contrast, 0, 1).astype(np.float32)
        field = crop(self._bank[int(rng.integers(len(self._bank)))], self.side_px, rng)
        if rng.random() < 0.35:
            second = crop(self._bank[int(rng.integers(len(self._bank)))], self.side_px, rng)
            field = 0.5 * (field + second)
        return colourise(field, colour, other)

    def _patchwork(self, image: Field, rng: np.random.Generator) -> tuple[Field, list[Mask]]:
        """Ground in two to five adjoining regions, each with a mask: fields and sky, tissue, walls."""
        fields = [smooth_field(self.side_px, int(rng.integers(2, 6)), rng) for _ in range(int(rng.integers(2, 6)))]
        winner = np.argmax(fields, axis=0)
        masks = [winner == number for number in range(len(fields))]
        for mask in masks[1:]:
            image = _blend(image, self._surface(rng.random(3, dtype=np.float32), rng), mask, rng)
        return image, masks

    def _paint(self, image: Field, silhouette: Mask, ground: Field, rng: np.random.Generator) -> Field:
        """The surface of one object: often close to what lies around it, so that colour alone does not give it away."""
        here = image[silhouette].mean(axis=0)
        novelty = rng.uniform(0.08, 1.0)
        colour = np.clip(here + novelty * (rng.random(3) - here), 0, 1).astype(np.float32)
        if rng.random() < 0.12:
            colour = ground
        paint = self._surface(colour, rng)
        if rng.random() < 0.5:
            paint = paint * _relief(silhouette, rng)[..., None]
        if rng.random() < 0.15:
            veil = rng.uniform(0.35, 0.85)
            paint = veil * paint + (1 - veil) * image
        return paint

    def _mark(self, image: Field, silhouette: Mask, rng: np.random.Generator) -> list[Mask]:
        """Paints a part onto the object in place: the whole keeps its mask, the part gets its own."""
        if rng.random() > 0.4:
            return []
        part = random_shape(self.side_px, rng) & silhouette
        if not 0.05 < part.sum() / max(silhouette.sum(), 1) < 0.7:
            return []
        colour = np.clip(image[part].mean(axis=0) + rng.normal(size=3) * 0.25, 0, 1).astype(np.float32)
        image[part] = self._surface(colour, rng)[part]
        return [part]


def _frame(side_px: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """The part of the square that the camera sees: upright, lying or square, since photographs come in all three."""
    short = side_px if rng.random() < 0.4 else round(side_px * rng.uniform(NARROWEST, 1))
    start = int(rng.integers(side_px - short + 1))
    cut, whole = slice(start, start + short), slice(0, side_px)
    return (cut, whole) if rng.random() < 0.6 else (whole, cut)


def _relief(silhouette: Mask, rng: np.random.Generator) -> Field:
    """Shading of a rounded body: brighter towards the light, darker at the far rim."""
    radius = float(np.sqrt(silhouette.sum()) * rng.uniform(0.08, 0.3)) + 1.0
    height = _blurred(silhouette, radius)
    slope_y, slope_x = np.gradient(height)
    angle = rng.uniform(0, 2 * np.pi)
    light = (slope_x * np.cos(angle) + slope_y * np.sin(angle)) * radius
    return np.clip(1 + rng.uniform(0.3, 1.6) * light + rng.uniform(-0.3, 0.3) * (height - 0.8), 0.2, 2.0).astype(
        np.float32
    )


def _blend(image: Field, paint: Field, silhouette: Mask, rng: np.random.Generator) -> Field:
    """Lays the object over the picture, with a soft edge, and now and then a shadow or a rim."""
    if rng.random() < 0.25:
        reach = rng.uniform(2, 6)
        shift = tuple(int(v) for v in rng.integers(-5, 6, 2))
        shadow = np.roll(_blurred(silhouette, reach), shift, axis=(0, 1))
        image = image * (1 - rng.uniform(0.2, 0.7) * shadow)[..., None]
    alpha = _blurred(silhouette, rng.uniform(0.3, 1.0 if rng.random() < 0.8 else 2.5))
    blended = image + alpha[..., None] * (paint - image)
    if rng.random() < 0.15:
        rim = np.clip(4 * alpha * (1 - alpha), 0, 1)[..., None] * rng.uniform(0.3, 0.9)
        blended = blended + rim * (rng.random(3, dtype=np.float32) - blended)
    return blended.astype(np.float32)


def _photograph(image: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a camera makes of it: uneven light, blur, gamma, colour cast, noise, sometimes JPEG."""
    height, width = image.shape[:2]
    light = 1 + rng.uniform(0, 0.9) * (smooth_field(max(height, width), int(rng.integers(1, 4)), rng) - 0.5)
    light = light[:height, :width]
    image = image * light[..., None] * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    image = np.clip(image, 0, 1) ** rng.uniform(0.6, 1.6)
    fade = rng.uniform(0, 0.9) if rng.random() < 0.6 else float(rng.random() < 0.3)
    image = image + fade * (image.mean(axis=2, keepdims=True) - image)
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.4)))
    noisy = np.asarray(picture, dtype=np.float32) + rng.normal(size=image.shape) * rng.uniform(0, 12) * (
        rng.random() < 0.7
    )
    picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=int(rng.integers(30, 95)))
        picture = Image.open(stream).convert("RGB")
    return np.asarray(picture, dtype=np.uint8)


def _blurred(silhouette: Mask, radius_px: float) -> Field:
    """The silhouette as grey (S, S) in [0, 1] with an edge about `radius_px` wide."""
    soft = Image.fromarray((silhouette * np.uint8(255)).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius_px))
    return np.asarray(soft, dtype=np.float32) / 255.0
