"""Other files of the same picture."""

from __future__ import annotations

import numpy as np
import pytest

from infosam.routing.disturbances import WAYS, copies, cropped, framed, reencoded, resized

RGB = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)


def test_sizes() -> None:
    rng = np.random.default_rng(0)
    assert reencoded(RGB, 30).shape == RGB.shape
    assert resized(RGB, 0.5).shape == (30, 45, 3)
    assert cropped(RGB, 0.5, 1.0, rng).shape == (30, 90, 3)
    assert framed(RGB, 0.1).shape == RGB.shape


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (16, 16)])
def test_tiny_pictures_stay_pictures(size: tuple[int, int]) -> None:
    rgb = np.zeros((*size, 3), np.uint8)
    for copy in copies(rgb, np.random.default_rng(0)):
        assert copy.ndim == 3
        assert copy.size


def test_a_frame_is_black_and_the_rest_is_there() -> None:
    found = framed(RGB, 0.1)
    assert not found[:6].any()
    assert not found[:, -6:].any()
    assert (found[6:-6, 6:-6] == RGB[6:-6, 6:-6]).all()


def test_a_crop_is_part_of_the_picture() -> None:
    found = cropped(RGB, 0.5, 0.5, np.random.default_rng(3))
    windows = np.lib.stride_tricks.sliding_window_view(RGB, found.shape)
    assert (windows == found).all(axis=(-3, -2, -1)).any()


def test_copies_differ_and_repeat_with_their_seed() -> None:
    first, again, other = (copies(RGB, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert len({copy.tobytes() for copy in first}) == len(first) == len(WAYS)
    assert {copy.tobytes() for copy in first} != {copy.tobytes() for copy in other}
