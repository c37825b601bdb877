"""S-measure against the formulas of the paper, written out pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from infosam.metrics import s_measure


def reference(probability: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Fan et al., ICCV 2017, for truths with object and background and quadrants of at least two pixels."""
    height, width = truth.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    objects = 0.0
    for side in (True, False):
        inside = [probability[at] if side else 1 - probability[at] for at in pixels if truth[at] == side]
        mean = sum(inside) / len(inside)
        spread = math.sqrt(sum((value - mean) ** 2 for value in inside) / (len(inside) - 1))
        objects += len(inside) / len(pixels) * 2 * mean / (mean**2 + 1 + spread)
    rows, columns = zip(*[at for at in pixels if truth[at]], strict=True)
    cut_y, cut_x = round(sum(rows) / len(rows)) + 1, round(sum(columns) / len(columns)) + 1
    regions = 0.0
    for low in (True, False):
        for left in (True, False):
            part = [(y, x) for y, x in pixels if (y < cut_y) == low and (x < cut_x) == left]
            regions += len(part) / len(pixels) * similarity([(probability[at], float(truth[at])) for at in part])
    return 0.5 * objects + 0.5 * regions


def similarity(pairs: list[tuple[float, float]]) -> float:
    count = len(pairs)
    x, y = (sum(pair[side] for pair in pairs) / count for side in (0, 1))
    xx = sum((a - x) ** 2 for a, _ in pairs) / (count - 1)
    yy = sum((b - y) ** 2 for _, b in pairs) / (count - 1)
    xy = sum((a - x) * (b - y) for a, b in pairs) / (count - 1)
    above, below = 4 * x * y * xy, (x**2 + y**2) * (xx + yy)
    return above / below if above else float(below == 0)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_formula_of_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.zeros((12, 15), bool)
    truth[3:8, 4:9] = rng.random((5, 5)) < 0.7
    probability = rng.random(truth.shape)
    assert s_measure(probability, truth) == pytest.approx(reference(probability, truth), rel=1e-9)


def test_an_object_in_the_last_corner_has_empty_quadrants_and_still_a_score() -> None:
    truth = np.zeros((6, 6), bool)
    truth[5, 5] = True  # the released code divides by zero here
    assert s_measure(truth.astype(float), truth) == pytest.approx(1.0)
    assert 0 <= s_measure(np.full((6, 6), 0.3), truth) < 1


def test_truths_of_one_class() -> None:
    probability = np.array([[0.1, 0.3], [0.2, 0.2]])
    assert s_measure(probability, np.zeros((2, 2), bool)) == pytest.approx(0.8)
    assert s_measure(probability, np.ones((2, 2), bool)) == pytest.approx(0.2)


def test_a_map_turned_round_has_no_structure_of_the_truth() -> None:
    truth = np.zeros((10, 10), bool)
    truth[:, :5] = True
    assert s_measure((~truth).astype(float), truth) == 0.0
