"""Silhouettes of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from infosam.synthetic import shapes
from infosam.synthetic.shapes import Mask, random_shape

KINDS = ("blob", "ellipse", "polygon", "rectangle", "star", "ring", "ribbon", "tree", "mesh", "cluster", "region",
         "composite")  # fmt: skip


def drawn(kind: str, side_px: int, seed: int) -> Mask:
    mask: Mask = getattr(shapes, kind)(side_px, np.random.default_rng(seed))
    return mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side_px", [32, 128])
def test_a_kind_draws_into_the_frame(kind: str, side_px: int) -> None:
    masks = [drawn(kind, side_px, seed) for seed in range(12)]
    assert all(mask.shape == (side_px, side_px) and mask.dtype == np.bool_ for mask in masks)
    assert sum(mask.any() for mask in masks) >= 10
    assert len({mask.tobytes() for mask in masks}) >= 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_chance_draws_the_same(kind: str) -> None:
    assert (drawn(kind, 64, 5) == drawn(kind, 64, 5)).all()


@pytest.mark.parametrize(("thin", "solid"), [("tree", "blob"), ("ribbon", "polygon"), ("mesh", "rectangle")])
def test_thin_ones_are_thin(thin: str, solid: str) -> None:
    """Share of the mask's pixels that touch the ground."""

    def rim(kind: str) -> float:
        shares = []
        for seed in range(12):
            mask = drawn(kind, 128, seed)
            inner = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
            shares.append(1 - inner.sum() / max(1, mask[1:-1, 1:-1].sum()))
        return float(np.mean(shares))

    assert rim(thin) > 2 * rim(solid)


def test_random_shapes_are_of_many_kinds() -> None:
    rng = np.random.default_rng(0)
    shares = [random_shape(64, rng).mean() for _ in range(200)]
    assert len({round(float(share), 4) for share in shares}) > 100
    assert sum(share > 0 for share in shares) > 190
