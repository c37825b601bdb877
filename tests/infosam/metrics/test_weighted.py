"""Weighted F-measure against the formulas of the paper, written out pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from infosam.metrics import weighted_f

TOP, LEFT, BOTTOM, RIGHT = 3, 4, 6, 9  # of the object, both ends inside


def rectangle(height: int = 14, width: int = 16) -> NDArray[np.bool_]:
    truth = np.zeros((height, width), bool)
    truth[TOP : BOTTOM + 1, LEFT : RIGHT + 1] = True
    return truth


def reference(probability: NDArray[np.float64], truth: NDArray[np.bool_], beta: float) -> float:
    """Margolin et al., CVPR 2014, with the kernel of the published MATLAB code; the object is the rectangle."""
    height, width = truth.shape
    error = np.abs(probability - truth)

    def nearest(y: int, x: int) -> tuple[int, int]:
        return min(max(y, TOP), BOTTOM), min(max(x, LEFT), RIGHT)

    kernel = {(v, u): math.exp(-(u * u + v * v) / 50) for v in range(-3, 4) for u in range(-3, 4)}
    total = sum(kernel.values())
    inside, outside, area = 0.0, 0.0, int(truth.sum())
    for y in range(height):
        for x in range(width):
            if truth[y, x]:
                smoothed = sum(
                    weight / total * error[nearest(y + v, x + u)]
                    for (v, u), weight in kernel.items()
                    if 0 <= y + v < height and 0 <= x + u < width
                )
                inside += min(error[y, x], smoothed)
            else:
                distance = math.dist((y, x), nearest(y, x))
                outside += error[y, x] * (2 - math.exp(math.log(0.5) / 5 * distance))
    recall, precision = 1 - inside / area, (area - inside) / (area - inside + outside)
    return (1 + beta) * recall * precision / (recall + beta * precision)


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_formula_of_the_paper(seed: int, beta: float) -> None:
    truth = rectangle()
    probability = np.random.default_rng(seed).random(truth.shape)
    assert weighted_f(probability, truth, beta=beta) == pytest.approx(reference(probability, truth, beta), rel=1e-9)


def test_an_error_far_from_the_object_costs_more_than_one_beside_it() -> None:
    truth = rectangle()
    beside, far = truth.astype(float), truth.astype(float)
    beside[TOP - 1, LEFT], far[13, 15] = 1, 1
    assert weighted_f(far, truth) < weighted_f(beside, truth) < weighted_f(truth.astype(float), truth)


def test_nothing_found_where_nothing_is() -> None:
    nothing = np.zeros((4, 4), bool)
    assert weighted_f(np.full((4, 4), 0.4), nothing) == 1.0
    assert weighted_f(np.full((4, 4), 0.6), nothing) == 0.0
    assert weighted_f(np.full((4, 4), 0.4), nothing, toolbox_empty=True) == 0.0


def test_a_truth_without_background() -> None:
    assert weighted_f(np.ones((5, 5)), np.ones((5, 5), bool)) == pytest.approx(1.0)
