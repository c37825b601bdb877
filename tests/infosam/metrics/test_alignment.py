"""E-measure against the alignment matrix of the paper."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from infosam.metrics import e_measure


def aligned(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Fan et al., IJCAI 2018, eq. 2 to 5 as matrices, for truths with object and background."""
    ours, theirs = found - found.mean(), truth - truth.mean()
    matrix = 2 * ours * theirs / (ours**2 + theirs**2)
    return float(((1 + matrix) ** 2 / 4).sum() / (truth.size - 1))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_matrix_of_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((9, 7)) < 0.4
    probability = rng.integers(0, 256, truth.shape) / 255
    found = e_measure(probability, truth)
    levels = (probability * 255).astype(int)
    curve = [aligned(levels >= level, truth) for level in range(256)]
    assert found.adaptive == pytest.approx(aligned(probability >= min(2 * probability.mean(), 1), truth))
    assert found.mean == pytest.approx(np.mean(curve))
    assert found.maximum == pytest.approx(max(curve))


def test_a_perfect_mask_scores_one_at_every_cut_but_the_lowest() -> None:
    truth = np.zeros((8, 8), bool)
    truth[2:5, 2:5] = True
    found = e_measure(truth.astype(float), truth)
    assert found.adaptive == found.maximum == 1.0
    everything = aligned(np.ones_like(truth), truth)  # the cut at 0
    assert found.mean == pytest.approx((255 + everything) / 256)


def test_truths_of_one_class() -> None:
    probability = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # the adaptive cut is 1/3
    assert e_measure(probability, np.zeros((2, 3), bool)).adaptive == 1.0  # 5 / (6 - 1), as the toolboxes divide
    assert e_measure(probability, np.ones((2, 3), bool)).adaptive == pytest.approx(1 / 5)


def test_nothing_found_where_nothing_is() -> None:
    nothing = np.zeros((4, 4))
    assert e_measure(nothing, nothing.astype(bool)).adaptive == 1.0
    assert e_measure(nothing, nothing.astype(bool), toolbox_empty=True).adaptive == 0.0
    assert e_measure(nothing, ~nothing.astype(bool)).adaptive == 0.0


def test_one_pixel() -> None:
    assert e_measure(np.ones((1, 1)), np.ones((1, 1), bool)) == (1.0, 1.0, 1.0)
