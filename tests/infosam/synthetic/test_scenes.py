"""Scenes to pre-train on: the same whatever came before, with masks that make sense."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from infosam.synthetic import scenes
from infosam.synthetic.scenes import MAX_SHARE, MIN_SHARE, NARROWEST, Scene, SceneMaker

SIDE = 64


@pytest.fixture(scope="module")
def maker() -> Iterator[SceneMaker]:
    """With few textures, because making them is most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "BANK_SIZE", 6)
        yield SceneMaker(SIDE, seed=3)


@pytest.fixture(scope="module")
def made(maker: SceneMaker) -> list[Scene]:
    return [maker(index) for index in range(40)]


def test_scene_i_is_the_same_in_any_order_and_in_another_maker(
    made: list[Scene], maker: SceneMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "BANK_SIZE", 6)
    other = SceneMaker(SIDE, seed=3)
    for index in (7, 0, 7, 39):
        for again in (maker(index), other(index)):
            assert (again.image == made[index].image).all()
            assert (again.masks == made[index].masks).all()


def test_scenes_and_seeds_differ(made: list[Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "BANK_SIZE", 6)
    assert not np.array_equal(made[0].image, made[1].image)
    assert not np.array_equal(SceneMaker(SIDE, seed=4)(0).image, made[0].image)


def test_their_form(made: list[Scene]) -> None:
    for scene in made:
        height, width = scene.image.shape[:2]
        assert scene.image.shape == (height, width, 3)
        assert max(height, width) == SIDE
        assert min(height, width) >= NARROWEST * SIDE - 1
        assert scene.image.dtype == np.uint8
        assert scene.masks.dtype == np.bool_
        assert len(scene.masks) >= 1
        assert scene.masks.shape[1:] == (height, width)
    assert {np.sign(scene.image.shape[0] - scene.image.shape[1]) for scene in made} == {-1, 0, 1}


def test_every_mask_is_large_enough_to_prompt_for(made: list[Scene]) -> None:
    shares = np.concatenate([scene.masks.mean(axis=(1, 2)) for scene in made])
    assert shares.min() >= MIN_SHARE
    assert shares.max() <= MAX_SHARE
    assert shares.max() > 5 * shares.min()  # small things and large ones


def test_masks_are_what_is_visible(made: list[Scene]) -> None:
    """A pixel belongs to one object; only a part painted onto an object lies in two masks, then wholly in one."""
    nested = 0
    for scene in made:
        for number, one in enumerate(scene.masks):
            for other in scene.masks[number + 1 :]:
                both = (one & other).sum()
                assert both in (0, min(one.sum(), other.sum()))
                nested += both > 0
    assert nested > 0


def test_the_picture_shows_its_objects(made: list[Scene]) -> None:
    """Across the border of a mask colours differ more than elsewhere."""
    across, elsewhere = [], []
    for scene in made:
        grey = scene.image.astype(np.float64).mean(axis=2)
        step = np.abs(np.diff(grey, axis=1))
        border = np.zeros_like(step, dtype=bool)
        for mask in scene.masks:
            border |= mask[:, 1:] != mask[:, :-1]
        across.append(step[border].mean())
        elsewhere.append(step[~border].mean())
    assert np.mean(across) > 1.5 * np.mean(elsewhere)
