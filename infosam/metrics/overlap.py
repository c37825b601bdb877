"""How far two masks, or a map and a mask, agree pixel by pixel."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from infosam.metrics.shared import Map, Mask, check_map, check_mask


def iou(prediction: Tensor, truth: Tensor) -> float:
    """Intersection over union (Jaccard index) of two (H, W) bool masks; 1 when both are empty."""
    both, either = _overlap(prediction, truth)
    return both / either if either else 1.0


def dice(prediction: Tensor, truth: Tensor) -> float:
    """Dice coefficient 2 |A and B| / (|A| + |B|) of two (H, W) bool masks; 1 when both are empty."""
    both, either = _overlap(prediction, truth)
    return 2 * both / (both + either) if either else 1.0


def ber(prediction: Mask, truth: Mask) -> float:
    """Balanced error rate 1 - (share of the object found + share of the background left alone) / 2, both (H, W) bool.

    From 0 (best) to 1; papers on shadows (Vicente et al., ECCV 2016) print it times 100. Where the truth has no
    object, or no background, the rate of the class that is there stands alone."""
    prediction, truth = check_mask(prediction, truth)
    rates = [float(np.mean(prediction[truth] != 1))] if truth.any() else []
    rates += [float(np.mean(prediction[~truth]))] if not truth.all() else []
    return float(np.mean(rates))


def mae(probability: Map, truth: Mask) -> float:
    """Mean absolute error of a map (H, W) in [0, 1] against a bool truth (H, W); from 0 (best) to 1."""
    values, truth = check_map(probability, truth)
    return float(np.abs(values - truth).mean())


def _overlap(prediction: Tensor, truth: Tensor) -> tuple[int, int]:
    """Pixels in both masks and pixels in at least one of them."""
    if prediction.shape != truth.shape:  # broadcasting would return a number that means nothing
        raise ValueError(f"masks differ in size: {tuple(prediction.shape)} and {tuple(truth.shape)}")
    # Counted by numpy on one core: torch would split so small a job over threads and wait for them.
    ours, theirs = prediction.bool().cpu().numpy(), truth.bool().cpu().numpy()
    return int(np.count_nonzero(ours & theirs)), int(np.count_nonzero(ours | theirs))
