"""Confidence intervals of means over images, by resampling images with replacement.

They say how much a mean would move with other images of the same kind, nothing about other training seeds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

CONFIDENCE = 0.95
RESAMPLES = 5000
_VALUES_AT_ONCE = 1 << 22


class Interval(NamedTuple):
    """A mean over `images` images and the bounds of its confidence interval, NaN for fewer than two images."""

    mean: float
    low: float
    high: float
    images: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0, as it should for a gain that is called one."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: ArrayLike, *, seed: int = 0, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987) of the mean of one value per image (n,).

    Equal seeds draw equal images, so intervals of several models on one split can be compared. Values that are all
    equal have an interval of no width. Raises ValueError for none, or for one that is not finite."""
    known: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if known.ndim != 1 or known.size == 0 or not np.isfinite(known).all():
        raise ValueError(f"an interval needs finite values, one per image; got shape {known.shape}")
    mean = float(known.mean())
    if known.size < 2:
        return Interval(mean, float("nan"), float("nan"), 1)
    if np.ptp(known) < 1e-12:  # resampled means would differ by rounding only, and the correction divides by that
        return Interval(mean, mean, mean, known.size)
    found = bootstrap(
        (known,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, _VALUES_AT_ONCE // known.size),
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), known.size)


def gain_interval(
    ours: ArrayLike, theirs: ArrayLike, *, seed: int = 0, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """Interval of the mean of ours - theirs, both (n,) on the same images: images that are hard for both cancel.

    Raises ValueError for other lengths."""
    first, second = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired values come from the same images, got {first.shape} and {second.shape}")
    return mean_interval(first - second, seed=seed, confidence=confidence, resamples=resamples)
