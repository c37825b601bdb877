"""E-measure: do foreground and background of two masks fall together, pixel by pixel and as a whole?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infosam.metrics.shared import EPS, Map, Mask, check_map

Counts = NDArray[np.float64]


class EMeasure(NamedTuple):
    """The three ways to turn a map into masks; each from 0 to 1, higher is better."""

    adaptive: float  # cut at twice the mean of the map, at most 1; what InfoSAM prints
    mean: float  # mean over cuts at all 256 grey levels; what Conv-LoRA and AutoGluon print
    maximum: (
        float  # best of these cuts for this image; toolboxes print the best one for the whole data set, <= its mean
    )


def e_measure(probability: Map, truth: Mask, *, toolbox_empty: bool = False) -> EMeasure:
    """Enhanced-alignment measure of a map (H, W) in [0, 1] against a bool truth (H, W).

    Fan et al., IJCAI 2018. Without any object it is the share of background in the cut map, without any background
    the share of foreground. The toolboxes divide by H W - 1, so that a perfect map scores a little more than 1; here
    it is 1. A map of zeros has the adaptive cut 0, and all of it passes for foreground in the toolboxes
    (`toolbox_empty`); here none of it does, so that nothing found where nothing is scores 1."""
    values, truth = check_map(probability, truth)
    cut = min(2 * float(values.mean()), 1.0)
    found = values >= cut if cut > 0 or toolbox_empty else np.zeros_like(truth)
    hits, alarms = np.array([np.count_nonzero(found & truth)]), np.array([np.count_nonzero(found & ~truth)])
    levels = (values * 255).astype(np.uint8)
    curve = _aligned(_at_least(levels[truth]), _at_least(levels[~truth]), truth)
    adaptive = _aligned(hits.astype(np.float64), alarms.astype(np.float64), truth)
    return EMeasure(float(adaptive[0]), float(curve.mean()), float(curve.max()))


def _at_least(levels: NDArray[np.uint8]) -> Counts:
    """(256,): how many values are >= 255, >= 254, ... >= 0."""
    return np.cumsum(np.bincount(levels, minlength=256)[::-1]).astype(np.float64)


def _aligned(hits: Counts, alarms: Counts, truth: Mask) -> Counts:
    """E-measure of masks with `hits` foreground pixels inside the truth and `alarms` outside it; eq. 2 to 5.

    A pixel's value depends only on the two masks' classes there, so four counts replace the matrix of the paper."""
    size, area = truth.size, int(truth.sum())
    found = hits + alarms
    if area == 0:
        total = size - found
    elif area == size:
        total = found
    else:
        object_mean, found_mean = area / size, found / size
        classes = (
            (hits, 1 - found_mean, 1 - object_mean),
            (alarms, 1 - found_mean, -object_mean),
            (area - hits, -found_mean, 1 - object_mean),
            (size - area - alarms, -found_mean, -object_mean),
        )
        total = np.zeros_like(found)
        for count, ours, theirs in classes:
            alignment = 2 * ours * theirs / (ours**2 + theirs**2 + EPS)
            total += count * (alignment + 1) ** 2 / 4
    return np.minimum(total / (size - 1 + EPS), 1.0)
