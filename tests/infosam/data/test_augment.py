"""Image and mask change together, within bounds, as the generator says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infosam.config import AugmentConfig
from infosam.data.augment import augment, mirrored

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
MASK = np.zeros((24, 40), dtype=bool)
MASK[8:14, 10:25] = True
MARKED = np.where(MASK[..., None], np.uint8(250), np.uint8(5)).repeat(3, axis=2)  # a picture of the mask itself


def run(rgb: Any, mask: Any, seed: int, **settings: Any) -> Any:
    picture, masks, _ = augment(rgb, mask[None], AugmentConfig(**settings), np.random.default_rng(seed))
    return picture, masks[0]


def test_off_by_default() -> None:
    assert not AugmentConfig().active
    rgb, mask = run(RGB, MASK, 0)
    assert (rgb == RGB).all()
    assert (mask == MASK).all()


@pytest.mark.parametrize(
    "settings", [{"flip": 0.5}, {"rotation_deg": 40}, {"scale": 0.5}, {"flip": 0.5, "rotation_deg": 90, "scale": 0.3}]
)
def test_image_and_mask_move_together(settings: dict[str, float]) -> None:
    for seed in range(12):
        rgb, mask = run(MARKED, MASK, seed, **settings)
        assert rgb.shape == MARKED.shape
        assert rgb.dtype == np.uint8
        assert mask.shape == MASK.shape
        bright = rgb[..., 0] > 127
        assert (bright != mask).mean() < 0.01
        assert mask.any()


def test_flips_are_exact_and_happen_as_often_as_asked() -> None:
    seen = {run(RGB, MASK, seed, flip=0.5)[0].tobytes() for seed in range(40)}
    expected = {np.ascontiguousarray(RGB[::a, ::b]).tobytes() for a in (1, -1) for b in (1, -1)}
    assert seen == expected
    rgb, mask = run(RGB, MASK, 0, flip=1.0)
    assert (rgb == RGB[::-1, ::-1]).all()
    assert (mask == MASK[::-1, ::-1]).all()


def test_colour_changes_the_image_only() -> None:
    rgb, mask = run(RGB, MASK, 1, colour=0.4)
    assert (mask == MASK).all()
    assert not (rgb == RGB).all()
    assert run(np.full_like(RGB, 100), MASK, 1, colour=0.4)[0].std() < 2  # a flat picture stays flat


def test_scale_stays_within_its_bound() -> None:
    areas = [run(MARKED, MASK, seed, scale=0.5)[1].sum() / MASK.sum() for seed in range(30)]
    assert min(areas) >= 0.9 / 1.5**2
    assert max(areas) <= 1.5**2 * 1.1
    assert min(areas) < 0.8 < 1.2 < max(areas)


def test_an_object_is_never_lost() -> None:
    corner = np.zeros_like(MASK)
    corner[:2, :2] = True
    for seed in range(30):
        assert run(RGB, corner, seed, rotation_deg=180, scale=1.0)[1].any()


def test_an_empty_mask_stays_empty() -> None:
    assert not run(RGB, np.zeros_like(MASK), 0, rotation_deg=30, flip=1.0)[1].any()


def test_the_generator_decides_and_kinds_do_not_disturb_each_other() -> None:
    settings = {"flip": 0.5, "rotation_deg": 20.0, "scale": 0.2, "colour": 0.2}
    assert (run(RGB, MASK, 5, **settings)[0] == run(RGB, MASK, 5, **settings)[0]).all()
    assert not (run(RGB, MASK, 5, **settings)[0] == run(RGB, MASK, 6, **settings)[0]).all()
    with_colour, without = (run(RGB, MASK, 5, flip=0.5, rotation_deg=20, colour=c)[1] for c in (0.3, 0.0))
    assert (with_colour == without).all()


def test_several_masks_of_an_image_move_alike() -> None:
    config = AugmentConfig(flip=0.5, rotation_deg=30, scale=0.3)
    both = np.stack([MASK, ~MASK])
    for seed in range(8):
        picture, masks, _ = augment(MARKED, both, config, np.random.default_rng(seed))
        alone, one, _ = augment(MARKED, both[:1], config, np.random.default_rng(seed))
        assert (picture == alone).all()
        assert (masks[0] == one[0]).all()
        assert not (masks[0] & masks[1]).any()


def test_a_flip_is_told_by_its_number() -> None:
    config = AugmentConfig(flip=0.5)
    seen = set()
    for seed in range(20):
        picture, _, variant = augment(MARKED, MARKED[None, :, :, 0] > 0, config, np.random.default_rng(seed))
        assert np.array_equal(picture, mirrored(MARKED, variant))
        seen.add(variant)
    assert seen == set(range(config.variants or 0)) == {0, 1, 2, 3}
    assert AugmentConfig().variants == 1
    for name in ("rotation_deg", "scale", "colour"):
        assert AugmentConfig.model_validate({"flip": 0.5, name: 0.5}).variants is None


def test_geometry_that_stays_as_it_was_is_not_mirrored() -> None:
    corner = np.zeros((1, *MARKED.shape[:2]), np.bool_)
    corner[0, 0, 0] = True
    config = AugmentConfig(flip=1.0, rotation_deg=45, scale=1.0)
    variants = {augment(MARKED, corner, config, np.random.default_rng(seed))[2] for seed in range(20)}
    assert 0 in variants
