"""Agreement of one prediction with the truth, at the original size of the image.

Each function states its range and what it gives for empty truths; `METRICS` lists all of them in the order of tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from infosam.metrics.alignment import EMeasure, e_measure
from infosam.metrics.boundary import boundary_f
from infosam.metrics.overlap import ber, dice, dice_of, iou, iou_of, mae, overlap
from infosam.metrics.structure import s_measure
from infosam.metrics.weighted import weighted_f

__all__ = [
    "METRICS", "EMeasure", "Metric", "ber", "boundary_f", "dice", "dice_of", "e_measure", "iou", "iou_of", "mae",
    "overlap", "s_measure", "weighted_f",
]  # fmt: skip


class Metric(NamedTuple):
    """One column of a table of scores; all metrics range from 0 to 1."""

    title: str
    higher_is_better: bool
    takes: Literal["mask", "map"]  # a cut mask, or a map in [0, 1]

    @property
    def best(self) -> float:
        """The value of a perfect prediction."""
        return 1.0 if self.higher_is_better else 0.0


METRICS: Mapping[str, Metric] = {
    "dice": Metric("Dice", True, "mask"),
    "iou": Metric("IoU", True, "mask"),
    "s_measure": Metric("S-measure", True, "map"),
    "e_adaptive": Metric("E-measure, adaptive", True, "map"),
    "e_mean": Metric("E-measure, mean", True, "map"),
    "e_max": Metric("E-measure, max", True, "map"),
    "weighted_f": Metric("weighted F", True, "map"),
    "mae": Metric("MAE", False, "map"),
    "ber": Metric("BER", False, "mask"),
    "boundary_f": Metric("boundary F", True, "mask"),
}
