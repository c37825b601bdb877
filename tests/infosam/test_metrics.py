from __future__ import annotations

import pytest
import torch

from infosam.metrics import dice, iou


def mask(*pixels: int) -> torch.Tensor:
    """A 2 x 4 mask with these flat positions set."""
    flat = torch.zeros(8, dtype=torch.bool)
    flat[list(pixels)] = True
    return flat.view(2, 4)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected_iou", "expected_dice"),
    [
        (mask(0, 1, 2), mask(1, 2, 3), 2 / 4, 4 / 6),
        (mask(0, 1), mask(0, 1), 1.0, 1.0),
        (mask(0), mask(1), 0.0, 0.0),
        (mask(0, 1, 2, 3), mask(0), 1 / 4, 2 / 5),
        (mask(), mask(5), 0.0, 0.0),
        (mask(5), mask(), 0.0, 0.0),
        (mask(), mask(), 1.0, 1.0),
    ],
)
def test_known_overlaps(
    prediction: torch.Tensor, truth: torch.Tensor, expected_iou: float, expected_dice: float
) -> None:
    assert iou(prediction, truth) == pytest.approx(expected_iou)
    assert dice(prediction, truth) == pytest.approx(expected_dice)
    assert iou(truth, prediction) == iou(prediction, truth)


def test_dice_follows_from_iou() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        a, b = torch.rand(2, 30, 40, generator=generator) > 0.6
        assert dice(a, b) == pytest.approx(2 * iou(a, b) / (1 + iou(a, b)))


def test_masks_of_different_size_are_refused_rather_than_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4\) and \(1, 4\)"):
        iou(mask(0), mask(0)[:1])
