from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infosam.data.masks import Unusable, distinct, objects_of
from infosam.data.pairs import MaskChoice

MASK = Path("mask.png")
SINGLY = MaskChoice(instances=True)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64, np.uint64, np.float32])
def test_distinct_values_are_those_of_sorting(kind: type) -> None:
    rng = np.random.default_rng(0)
    info = np.iinfo(kind) if np.issubdtype(kind, np.integer) else np.finfo(kind)
    for values in (
        rng.integers(0, 5, (30, 40)).astype(kind),
        np.array([[info.min, info.max]], kind),
        np.full((3, 4), info.max, kind),
        np.zeros((3, 4), kind),
        np.zeros((0, 4), kind),
    ):
        assert distinct(values) == [float(value) for value in np.unique(values)]


def test_true_and_false_are_values_too() -> None:
    assert distinct(np.array([[True, False]])) == [0.0, 1.0]
    assert distinct(np.array([[False, False]])) == [0.0]


def test_a_part_means_what_the_whole_means() -> None:
    background = np.ones((4, 5), np.uint8)
    assert objects_of(background, MaskChoice(), MASK, distinct(background))[0].all()
    assert not objects_of(background, MaskChoice(), MASK, whole=(1.0, 255.0))[0].any()
    assert objects_of(background * 255, MaskChoice(), MASK, whole=(1.0, 255.0))[0].all()


def test_a_value_of_a_label_map_is_one_object_in_every_part() -> None:
    part = np.zeros((9, 9), np.uint8)
    part[:3, :3] = part[6:, 6:] = 2
    assert len(objects_of(part, SINGLY, MASK, distinct(part))) == 2
    (one,) = objects_of(part, SINGLY, MASK, whole=(0.0, 1.0, 2.0))
    assert one.sum() == 18
    (none,) = objects_of(part * 0, SINGLY, MASK, whole=(0.0, 1.0, 2.0))
    assert not none.any()


def test_a_part_of_a_mask_with_many_values_is_refused_though_it_has_two() -> None:
    with pytest.raises(Unusable, match="3 different values"):
        objects_of(np.eye(4, dtype=np.uint8), MaskChoice(), MASK, whole=(0.0, 1.0, 2.0))


@pytest.mark.parametrize(
    ("values", "objects"),
    [((0, 1, 2, 255), 2), ((0, 15, 255), 1), ((0, 1, 255), 1), ((0, 64, 128, 255), 3), ((0, 127, 255), 2)],
)
def test_the_borders_of_label_maps_are_no_objects(values: tuple[int, ...], objects: int) -> None:
    drawn = np.repeat(np.array(values, np.uint8), 8).reshape(-1, 4)
    assert len(objects_of(drawn, SINGLY, MASK, distinct(drawn))) == objects
