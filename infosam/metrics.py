"""Agreement of one predicted mask with the truth, at the original size of the image. Range 0 to 1, higher is better."""

from __future__ import annotations

from torch import Tensor


def iou(prediction: Tensor, truth: Tensor) -> float:
    """Intersection over union (Jaccard index) of two (H, W) bool masks; 1 when both are empty."""
    both, either = _overlap(prediction, truth)
    return both / either if either else 1.0


def dice(prediction: Tensor, truth: Tensor) -> float:
    """Dice coefficient 2 |A and B| / (|A| + |B|) of two (H, W) bool masks; 1 when both are empty."""
    both, either = _overlap(prediction, truth)
    return 2 * both / (both + either) if either else 1.0


def _overlap(prediction: Tensor, truth: Tensor) -> tuple[int, int]:
    """Pixels in both masks and pixels in at least one of them."""
    if prediction.shape != truth.shape:  # broadcasting would return a number that means nothing
        raise ValueError(f"masks differ in size: {tuple(prediction.shape)} and {tuple(truth.shape)}")
    prediction, truth = prediction.bool(), truth.bool()
    return int((prediction & truth).sum()), int((prediction | truth).sum())
