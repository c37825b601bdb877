"""Procedural grey fields and their colouring: the surfaces of synthetic scenes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.float32]
FIELD_PX = 256


def make_bank(count: int, rng: np.random.Generator) -> list[Field]:
    """`count` grey fields (FIELD_PX, FIELD_PX) in [0, 1]: mostly power-law noise, some stripes, cells and dots."""
    makers = (_noise, _noise, _noise, _warped_stripes, _cells, _dots)
    return [_stretch(makers[i % len(makers)](rng)) for i in range(count)]


def crop(field: Field, side_px: int, rng: np.random.Generator) -> Field:
    """A random square window of `field`, flipped and turned at random, brought to (side_px, side_px)."""
    window = int(rng.integers(max(24, side_px // 3), FIELD_PX + 1))
    top, left = rng.integers(0, FIELD_PX - window + 1, size=2)
    view = np.rot90(field[top : top + window, left : left + window], int(rng.integers(4)))
    if rng.random() < 0.5:
        view = view[:, ::-1]
    resized = Image.fromarray(np.ascontiguousarray(view)).resize((side_px, side_px), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def colourise(field: Field, dark: Field, light: Field) -> Field:
    """Maps a grey field (H, W) to colours (H, W, 3) between two RGB colours in [0, 1]."""
    return dark + field[..., None] * (light - dark)


def smooth_field(side_px: int, cells: int, rng: np.random.Generator) -> Field:
    """A slowly varying field (side_px, side_px) in [0, 1] with about `cells` features along a side."""
    coarse = rng.random((cells + 1, cells + 1), dtype=np.float32)
    smooth = Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smooth, dtype=np.float32), 0.0, 1.0)


def _noise(rng: np.random.Generator) -> Field:
    """Noise with power spectrum 1 / f^k, k in 0.6 .. 3.2, sometimes stretched along one direction."""
    fy = np.fft.fftfreq(FIELD_PX)[:, None]
    fx = np.fft.rfftfreq(FIELD_PX)[None, :]
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 1.6)) if rng.random() < 0.4 else 1.0
    along = fx * np.cos(angle) + fy * np.sin(angle)
    across = -fx * np.sin(angle) + fy * np.cos(angle)
    radius = np.hypot(along * stretch, across) + 1.0 / FIELD_PX
    spectrum = rng.normal(size=radius.shape) + 1j * rng.normal(size=radius.shape)
    return np.fft.irfft2(spectrum * radius ** -rng.uniform(0.6, 3.2), s=(FIELD_PX, FIELD_PX)).astype(np.float32)


def _warped_stripes(rng: np.random.Generator) -> Field:
    y, x = np.mgrid[0:FIELD_PX, 0:FIELD_PX] / FIELD_PX
    angle, frequency = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(4), np.log(40)))
    warp = (smooth_field(FIELD_PX, int(rng.integers(2, 8)), rng) - 0.5) * rng.uniform(0, 0.5)
    wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle) + warp))
    return (np.tanh(wave * rng.uniform(0.5, 4)) + 0.3 * rng.normal(size=wave.shape)).astype(np.float32)


def _cells(rng: np.random.Generator) -> Field:
    """Distance to the nearest of some random points, on a torus-free square: a cracked or cellular surface."""
    points = rng.random((int(rng.integers(20, 120)), 2)) * FIELD_PX
    y, x = np.mgrid[0:FIELD_PX:2, 0:FIELD_PX:2].astype(np.float32)
    squared = (y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2
    nearest = np.sqrt(np.partition(squared, 1, axis=-1)[..., :2])
    field = nearest[..., 1] - nearest[..., 0] if rng.random() < 0.5 else nearest[..., 0]
    return np.repeat(np.repeat(field, 2, axis=0), 2, axis=1).astype(np.float32)


def _dots(rng: np.random.Generator) -> Field:
    field = _noise(rng)
    threshold = np.quantile(field, rng.uniform(0.6, 0.95))
    return (1 / (1 + np.exp(-(field - threshold) / (field.std() * 0.1 + 1e-6)))).astype(np.float32)


def _stretch(field: Field) -> Field:
    low, high = np.quantile(field, [0.01, 0.99])
    return np.clip((field - low) / max(high - low, 1e-6), 0.0, 1.0).astype(np.float32)
