from __future__ import annotations

import math

import numpy as np
import pytest

from infosam.bootstrap import gain_interval, mean_interval


def test_it_is_about_two_standard_errors_to_either_side() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.1, 200)
    found = mean_interval(values)
    error = values.std(ddof=1) / math.sqrt(200)
    assert (found.mean, found.images) == (pytest.approx(values.mean()), 200)
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.2 * error)


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [mean_interval(rng.normal(0.5, 0.2, 40), resamples=400, confidence=0.8) for _ in range(150)]
    covered = sum(interval.low <= 0.5 <= interval.high for interval in found) / len(found)
    assert 0.68 <= covered <= 0.9


def test_chance_is_the_seed() -> None:
    values = np.random.default_rng(2).random(20)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_pairs_find_a_small_gain_among_very_different_images() -> None:
    rng = np.random.default_rng(3)
    theirs = rng.uniform(0, 0.9, 50)
    ours = theirs + 0.02 + rng.normal(0, 0.01, 50)
    gain = gain_interval(ours, theirs)
    assert gain.mean == pytest.approx(0.02, abs=0.005)
    assert gain.excludes_zero
    assert gain.low > 0
    assert mean_interval(ours).low < mean_interval(theirs).high  # apart from pairs they cannot be told apart
    loss = gain_interval(theirs, ours)
    assert loss.excludes_zero
    assert loss.high < 0
    assert not gain_interval(theirs, rng.permutation(theirs)).excludes_zero


def test_values_without_spread_and_single_images() -> None:
    assert mean_interval([0.5] * 7) == (0.5, 0.5, 0.5, 7)
    assert mean_interval([0.1 + 0.2, 0.3]).low == pytest.approx(0.3)
    single = mean_interval([0.4])
    assert (single.mean, single.images) == (0.4, 1)
    assert math.isnan(single.low)
    assert math.isnan(single.high)
    assert not single.excludes_zero


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [[0.1, 0.2]]])
def test_what_has_no_interval_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values, one per image"):
        mean_interval(values)


def test_pairs_come_from_the_same_images() -> None:
    with pytest.raises(ValueError, match="same images"):
        gain_interval([0.1, 0.2], [0.1])
