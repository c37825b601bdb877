"""What all metrics ask of their arguments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]

# Guards divisions as the saliency toolboxes do (MATLAB's eps), so that the numbers can be compared to theirs.
EPS = float(np.spacing(1.0))


def check_map(probability: Map, truth: Mask) -> tuple[NDArray[np.float64], Mask]:
    """The map as float64, and the truth. Raises ValueError for other shapes, or values outside [0, 1]."""
    values = np.asarray(probability, dtype=np.float64)
    truth = _check_shapes(values, truth)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also catches values that are not a number
        raise ValueError(f"a probability map has values in [0, 1], got {low:g} to {high:g}: squash logits first")
    return values, truth


def check_mask(prediction: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Both masks. Raises ValueError for other shapes, TypeError for anything but bool."""
    prediction = np.asarray(prediction)
    if prediction.dtype != np.bool_:
        raise TypeError(f"a mask is bool, got {prediction.dtype}: cut the map at a threshold first")
    return prediction, _check_shapes(prediction, truth)


def _check_shapes(prediction: NDArray[np.generic], truth: Mask) -> Mask:
    truth = np.asarray(truth)
    if truth.dtype != np.bool_:
        raise TypeError(f"the truth is a bool mask, got {truth.dtype}")
    if prediction.shape != truth.shape or truth.ndim != 2 or truth.size == 0:
        raise ValueError(f"expected two (H, W) of equal size, got {prediction.shape} and {truth.shape}")
    return truth
