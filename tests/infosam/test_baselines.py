from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from infosam.baselines import TRIVIAL, box_filled, inscribed_ellipse, trivial_scores
from infosam.data.dataset import SegmentationDataset
from infosam.data.store import Sample, import_dataset, open_dataset


class Samples:
    """Two 6 x 8 masks: a rectangle, and none."""

    def __init__(self) -> None:
        rectangle = np.zeros((6, 8), bool)
        rectangle[1:4, 2:7] = True
        self.masks = [rectangle, np.zeros((6, 8), bool)]

    def __len__(self) -> int:
        return len(self.masks)

    def sample(self, index: int, /) -> Sample:
        return Sample(id=str(index), image=np.zeros((6, 8, 3), np.uint8), mask=self.masks[index])


def test_both_ends_of_a_box_are_inside() -> None:
    mask = box_filled([2, 1, 6, 3], (6, 8))
    assert mask.sum() == 5 * 3
    np.testing.assert_array_equal(mask.numpy(), Samples().masks[0])


def test_the_ellipse_fills_its_share_of_the_box() -> None:
    box = [10, 20, 209, 119]
    ellipse, rectangle = inscribed_ellipse(box, (150, 230)), box_filled(box, (150, 230))
    assert not (ellipse & ~rectangle).any()
    assert ellipse.sum().item() / rectangle.sum().item() == pytest.approx(math.pi / 4, abs=0.002)
    assert ellipse.flip(0, 1).any(0).sum() == ellipse.any(0).sum() == 200  # it touches all four sides
    assert ellipse.any(1).sum() == 100


def test_the_smallest_ellipse_is_one_pixel() -> None:
    assert inscribed_ellipse([3, 2, 3, 2], (6, 8)).nonzero().tolist() == [[2, 3]]


def test_scores_with_boxes_and_without_prompt() -> None:
    boxed = trivial_scores(Samples(), "box")
    assert list(boxed) == list(TRIVIAL) == ["box_filled", "inscribed_ellipse"]
    assert boxed["box_filled"][0] == {"id": "0", "iou": 1.0, "dice": 1.0}
    assert boxed["box_filled"][1] == {"id": "1", "iou": 0.0, "dice": 0.0}  # no object: the frame is all wrong
    framed = trivial_scores(Samples(), "none")
    assert framed["box_filled"][0]["iou"] == pytest.approx(15 / 48)
    assert framed["box_filled"][0]["dice"] == pytest.approx(30 / 63)


@pytest.mark.parametrize(
    ("domain", "filled", "ellipse"),
    [
        ("polyp", 0.632, 0.702),
        ("leaf_disease", 0.345, 0.377),
        ("retinal_vessel", 0.115, 0.141),
        ("road", 0.226, 0.211),
        ("skin_lesion", 0.704, 0.825),
        pytest.param("generic_objects", 0.611, 0.621, marks=pytest.mark.slow),
    ],
)
def test_the_table_of_the_real_sets_is_reproduced(
    test_data: Path, tmp_path: Path, domain: str, filled: float, ellipse: float
) -> None:
    """Figures from the README of the data sets, computed there by other code."""
    import_dataset(test_data / domain, domain=domain, out=tmp_path / domain)
    scores = trivial_scores(SegmentationDataset(open_dataset(tmp_path / domain), "test", 64), "box")
    means = [float(np.mean([score["iou"] for score in scores[name]])) for name in TRIVIAL]
    assert means == pytest.approx([filled, ellipse], abs=0.005)
