"""A small made-up domain to try the product with: round spores among rod-shaped debris under a microscope.

Unlike the scenes vit_nano was pre-trained on, where a mask is one object, the truth here is all spores of a picture
and none of the debris: a meaning that a prompt cannot tell and only fine-tuning can teach.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from infosam.synthetic.textures import Field, smooth_field

SPLIT_SEEDS = {"train": 0, "val": 1, "test": 2}


def write_demo_domain(
    out: Path, *, seed: int = 0, train: int = 48, val: int = 16, test: int = 16, image_px: int = 192
) -> Path:
    """Writes images/, masks/ and one CSV per split (`image,label`) to `out`; returns `out`.

    The same arguments give the same files. Splits come from different random streams."""
    counts = {"train": train, "val": val, "test": test}
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        rows = []
        for number in range(count):
            rng = np.random.default_rng([seed, SPLIT_SEEDS[split], number])
            image, mask = spores(image_px, rng)
            name = f"{split}_{number:04d}.png"
            Image.fromarray(image).save(out / "images" / name)
            Image.fromarray((mask * np.uint8(255)).astype(np.uint8)).save(out / "masks" / name)
            rows.append((f"images/{name}", f"masks/{name}"))
        with (out / f"{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([("image", "label"), *rows])
    return out


def spores(side_px: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One picture (S, S, 3) and the mask (S, S) of its spores: pale discs with a dark wall, rods lie among them."""
    background = np.array([196, 205, 190]) + rng.normal(size=3) * 8
    image = background * (0.85 + 0.3 * smooth_field(side_px, 3, rng))[..., None]
    mask = np.zeros((side_px, side_px), dtype=bool)
    for _ in range(int(rng.integers(6, 14))):
        image = _lay(image, *_rod(side_px, rng))
    middle = rng.uniform(0.3, 0.7, 2) * side_px
    for _ in range(int(rng.integers(3, 8))):
        body, wall = _spore(side_px, middle, rng)
        image = _lay(image, body, np.array([176, 168, 120]) + rng.normal(size=3) * 6, 0.55)
        image = _lay(image, wall, np.array([72, 60, 40]) + rng.normal(size=3) * 6, 0.8)
        mask |= body > 0.5
    image += rng.normal(size=image.shape) * 6
    return np.clip(image, 0, 255).astype(np.uint8), mask


def _spore(side_px: int, middle: NDArray[np.float64], rng: np.random.Generator) -> tuple[Field, Field]:
    """Coverage of a disc and of its wall."""
    radius = side_px * rng.uniform(0.05, 0.11)
    x, y = np.clip(middle + rng.normal(size=2) * side_px * 0.18, radius, side_px - radius)
    squeeze = rng.uniform(0.85, 1.18)
    outer = _ellipse(side_px, x, y, radius * squeeze, radius / squeeze)
    inner = _ellipse(side_px, x, y, radius * squeeze * 0.82, radius / squeeze * 0.82)
    return outer, np.clip(outer - inner, 0, 1)


def _rod(side_px: int, rng: np.random.Generator) -> tuple[Field, NDArray[np.float64], float]:
    """Coverage, colour and opacity of a piece of debris."""
    canvas = Image.new("L", (side_px, side_px))
    start, angle = rng.uniform(0, side_px, 2), rng.uniform(0, np.pi)
    end = start + np.array([np.cos(angle), np.sin(angle)]) * side_px * rng.uniform(0.1, 0.35)
    width = max(2, round(side_px * rng.uniform(0.015, 0.05)))
    ImageDraw.Draw(canvas).line([tuple(start), tuple(end)], fill=255, width=width)
    return _soft(canvas), np.array([110, 100, 84]) + rng.normal(size=3) * 18, float(rng.uniform(0.4, 0.9))


def _ellipse(side_px: int, x: float, y: float, a: float, b: float) -> Field:
    canvas = Image.new("L", (side_px, side_px))
    ImageDraw.Draw(canvas).ellipse([x - a, y - b, x + a, y + b], fill=255)
    return _soft(canvas)


def _soft(canvas: Image.Image) -> Field:
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.8)), dtype=np.float32) / 255.0


def _lay(
    image: NDArray[np.float64], coverage: Field, colour: NDArray[np.float64], opacity: float
) -> NDArray[np.float64]:
    layered: NDArray[np.float64] = image + (opacity * coverage)[..., None] * (colour - image)
    return layered
