from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from infosam.metrics.boundary import boundary_f, outline


def square(top: int, left: int, side: int, size: int = 40) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def reference(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], reach_px: float) -> float:
    """All pairs of outline pixels."""
    ours, theirs = np.argwhere(outline(prediction)), np.argwhere(outline(truth))
    distances = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(axis=2))
    precision, recall = (distances.min(axis=axis) <= reach_px for axis in (1, 0))
    return 2 * precision.mean() * recall.mean() / (precision.mean() + recall.mean())


def test_the_outline_runs_between_unequal_neighbours() -> None:
    expected = np.zeros((5, 5), bool)
    expected[1, 1:4] = expected[3, 1:4] = expected[1:4, 1] = expected[1:4, 3] = True
    expected[3, 3] = True
    assert outline(square(2, 2, 2, size=5)).tolist() == expected.tolist()


@pytest.mark.parametrize(("moved", "side"), [(0, 12), (1, 12), (2, 12), (3, 9), (5, 20)])
def test_it_is_f1_over_pairs_within_the_tolerance(moved: int, side: int) -> None:
    truth, prediction = square(10, 10, 12), square(10 + moved, 10, side)
    reach_px = math.ceil(0.008 * math.hypot(40, 40))
    assert reach_px == 1
    assert boundary_f(prediction, truth) == pytest.approx(reference(prediction, truth, reach_px))


def test_the_tolerance_grows_with_the_picture() -> None:
    truth, prediction = square(50, 50, 100, size=400), square(53, 53, 94, size=400)
    assert boundary_f(prediction, truth) == 1.0  # corners 4.2 px apart; 0.008 of the diagonal of 566 px is 4.5, so 5
    assert boundary_f(prediction, truth, tolerance=0.002) < 0.5


def test_masks_without_an_outline() -> None:
    empty, full, some = np.zeros((9, 9), bool), np.ones((9, 9), bool), square(2, 2, 3, size=9)
    assert boundary_f(empty, empty) == boundary_f(full, full) == 1.0
    assert boundary_f(empty, full) == boundary_f(some, empty) == boundary_f(empty, some) == 0.0


def test_outlines_that_do_not_meet() -> None:
    assert boundary_f(square(0, 0, 5), square(30, 30, 5)) == 0.0
