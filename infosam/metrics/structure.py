"""S-measure: do object and surroundings have the structure of the truth?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infosam.metrics.shared import EPS, Map, Mask, check_map

Values = NDArray[np.float64]


def s_measure(probability: Map, truth: Mask) -> float:
    """Structure measure of a map (H, W) in [0, 1] against a bool truth (H, W); from 0 to 1, higher is better.

    Fan et al., ICCV 2017, with alpha 0.5: half object-aware, half region-aware similarity. Without any object it is
    the mean of 1 - map, without any background the mean of the map. Deviation from the released InfoSAM code, which
    divides by zero there: a quadrant without pixels counts 0 and a region of one pixel has deviation 0."""
    values, truth = check_map(probability, truth)
    share = float(truth.mean())
    if share == 0:
        return 1 - float(values.mean())
    if share == 1:
        return float(values.mean())
    objects = share * _object_score(values[truth]) + (1 - share) * _object_score(1 - values[~truth])
    return max(0.0, 0.5 * objects + 0.5 * _region_score(values, truth))


def _object_score(inside: Values) -> float:
    """2 m / (m^2 + 1 + s) of the mean m and the sample deviation s of the values that should all be 1; eq. 5."""
    mean = float(inside.mean())
    deviation = float(inside.std(ddof=1)) if inside.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _region_score(values: Values, truth: Mask) -> float:
    """Structural similarity of the four quadrants around the truth's centre of mass, weighted by their areas."""
    height, width = truth.shape
    # Rounded, then one further, because MATLAB's ranges include their end.
    y, x = (int(centre) + 1 for centre in np.argwhere(truth).mean(axis=0).round())
    quadrants = [
        (rows, columns) for rows in (slice(0, y), slice(y, height)) for columns in (slice(0, x), slice(x, width))
    ]
    return sum(
        _similarity(values[quadrant], truth[quadrant].astype(np.float64)) * truth[quadrant].size / truth.size
        for quadrant in quadrants
        if truth[quadrant].size
    )


def _similarity(values: Values, truth: Values) -> float:
    """SSIM of one whole region with sample variances; 1 where both are constant and one of them, or both, are 0."""
    spare = values.size - 1 + EPS
    x, y = float(values.mean()), float(truth.mean())
    dx, dy = values - x, truth - y
    variances = float((dx**2).sum() + (dy**2).sum()) / spare
    alpha = 4 * x * y * float((dx * dy).sum()) / spare
    beta = (x**2 + y**2) * variances
    if alpha != 0:
        return alpha / (beta + EPS)
    return 1.0 if beta == 0 else 0.0
