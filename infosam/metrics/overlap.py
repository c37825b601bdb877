"""How far two masks, or a map and a mask, agree pixel by pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from infosam.metrics.shared import Map, Mask, check_map, check_mask


def iou(prediction: Tensor, truth: Tensor) -> float:
    """Intersection over union (Jaccard index) of two (H, W) bool masks; 1 when both are empty."""
    return iou_of(*overlap(prediction, truth).tolist())


def dice(prediction: Tensor, truth: Tensor) -> float:
    """Dice coefficient 2 |A and B| / (|A| + |B|) of two (H, W) bool masks; 1 when both are empty."""
    return dice_of(*overlap(prediction, truth).tolist())


def iou_of(both: int, either: int) -> float:
    """`iou` from the numbers of pixels that `overlap` counts."""
    return both / either if either else 1.0


def dice_of(both: int, either: int) -> float:
    """`dice` from the numbers of pixels that `overlap` counts."""
    return 2 * both / (both + either) if either else 1.0


def overlap(prediction: Tensor, truth: Tensor) -> Tensor:
    """(2,) int64: pixels in both of two bool masks (H, W), and in at least one; where the prediction lies.

    On a GPU nothing waits for the numbers, so that many can be fetched at once."""
    if prediction.shape != truth.shape:  # broadcasting would return a number that means nothing
        raise ValueError(f"masks differ in size: {tuple(prediction.shape)} and {tuple(truth.shape)}")
    ours, theirs = prediction.bool(), truth.bool().to(prediction.device)
    if ours.device.type != "cpu":
        return torch.stack([torch.count_nonzero(ours & theirs), torch.count_nonzero(ours | theirs)])
    # Counted by numpy on one core: torch would split so small a job over threads and wait for them.
    mine, true = ours.numpy(), theirs.numpy()
    return torch.tensor([np.count_nonzero(mine & true), np.count_nonzero(mine | true)])


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
