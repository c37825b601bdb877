"""Boundary F: do the outlines of two masks run along each other?"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import distance_transform_edt

from infosam.metrics.shared import Mask, check_mask

TOLERANCE = 0.008  # of the picture's diagonal, rounded up to pixels; the value of the DAVIS benchmark


def boundary_f(prediction: Mask, truth: Mask, *, tolerance: float = TOLERANCE) -> float:
    """F1 of outline pixels that have one of the other outline within a tolerance; masks (H, W) bool, 0 to 1 (best).

    Perazzi et al., CVPR 2016 (DAVIS, measure F). A mask that is empty or fills the picture has no outline: then the
    score is 1 for equal masks, else 0."""
    prediction, truth = check_mask(prediction, truth)
    ours, theirs = outline(prediction), outline(truth)
    if not ours.any() or not theirs.any():
        return float(np.array_equal(prediction, truth))
    reach_px = math.ceil(tolerance * math.hypot(*truth.shape))
    precision = float((distance_transform_edt(~theirs)[ours] <= reach_px).mean())
    recall = float((distance_transform_edt(~ours)[theirs] <= reach_px).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(mask: Mask) -> Mask:
    """(H, W) bool: pixels that differ from their right, lower or lower right neighbour; DAVIS' `seg2bmap`."""
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge
