from __future__ import annotations

import numpy as np
import pytest
import torch

from infosam.metrics import ber, dice, iou, mae


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


class TestBer:
    @pytest.mark.parametrize(
        ("prediction", "truth", "expected"),
        [
            (mask(0, 1, 2), mask(1, 2, 3), (1 / 3 + 1 / 5) / 2),
            (mask(0, 1), mask(0, 1), 0.0),
            (mask(), mask(5), 0.5),
            (~mask(5), mask(5), 1.0),
            (mask(5), mask(), 1 / 8),
            (mask(5), ~mask(), 7 / 8),
            (mask(), mask(), 0.0),
        ],
    )
    def test_known_rates(self, prediction: torch.Tensor, truth: torch.Tensor, expected: float) -> None:
        assert ber(prediction.numpy(), truth.numpy()) == pytest.approx(expected)

    def test_a_large_background_does_not_hide_a_missed_object(self) -> None:
        truth = np.zeros((100, 100), bool)
        truth[0, 0] = True
        assert ber(np.zeros_like(truth), truth) == 0.5


def test_mean_absolute_error() -> None:
    probability, truth = np.array([[0.2, 0.9], [0.0, 1.0]]), np.array([[False, True], [False, False]])
    assert mae(probability, truth) == pytest.approx((0.2 + 0.1 + 0.0 + 1.0) / 4)
    assert mae(probability.astype(np.float32), truth) == pytest.approx(0.325)
