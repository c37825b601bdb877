"""Weighted F-measure: errors count by where they lie, not only by how many there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, distance_transform_edt

from infosam.metrics.shared import EPS, Map, Mask, check_map

KERNEL_PX, KERNEL_SIGMA_PX = 7, 5.0
HALF_DISTANCE_PX = 5.0  # an error outside the object costs between 1 and 2; half of the rise within this distance


def weighted_f(probability: Map, truth: Mask, *, beta: float = 1.0, toolbox_empty: bool = False) -> float:
    """Weighted F-measure of a map (H, W) in [0, 1] against a bool truth (H, W); from 0 to 1, higher is better.

    Margolin et al., CVPR 2014: errors inside the object are smoothed over neighbours, errors outside cost more the
    further they lie from it. `beta` is the square of the paper's beta, as in the saliency toolboxes: 1 there, 0.3 in
    AutoGluon and the released InfoSAM code. A truth without object has no recall: the score is 1 if no pixel reaches
    one half, else 0; the toolboxes say 0 in any case (`toolbox_empty`)."""
    values, truth = check_map(probability, truth)
    if not truth.any():
        return float(not toolbox_empty and values.max() < 0.5)
    distance, nearest = distance_transform_edt(~truth, return_indices=True)
    error = np.abs(values - truth)
    # Outside the object the smoothing sees the error of the nearest object pixel, so that edges are not blurred.
    smoothed = _smooth(error[nearest[0], nearest[1]])
    error[truth] = np.minimum(error[truth], smoothed[truth])
    importance = 2 - np.exp(np.log(0.5) / HALF_DISTANCE_PX * distance[~truth])
    missed, false_area = float(error[truth].sum()), float((error[~truth] * importance).sum())
    area = int(truth.sum())
    recall = 1 - missed / area
    precision = (area - missed) / (area - missed + false_area + EPS)
    return float((1 + beta) * recall * precision / (recall + beta * precision + EPS))


def _smooth(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """MATLAB's imfilter with fspecial('gaussian', 7, 5): zeros beyond the picture. The kernel is separable."""
    offsets = np.arange(KERNEL_PX) - KERNEL_PX // 2
    kernel = np.exp(-(offsets**2) / (2 * KERNEL_SIGMA_PX**2))
    kernel /= kernel.sum()
    rows = correlate1d(error, kernel, axis=0, mode="constant")
    smoothed: NDArray[np.float64] = correlate1d(rows, kernel, axis=1, mode="constant")
    return smoothed
