"""What a prompt alone already says about the mask. A tuned model that does not beat this has learnt nothing.

Boxes are x0, y0, x1, y1 pixel indices, both ends inside the object, as `infosam.data.prompts.box_of` gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypedDict

import torch
from torch import Tensor

from infosam import metrics
from infosam.data.prompts import box_of
from infosam.data.store import Sample
from infosam.protocols import Prompt


class ImageScore(TypedDict):
    """Scores of one image."""

    id: str
    iou: float
    dice: float


class Samples(Protocol):
    """Images and masks at their original size, as a `SegmentationDataset` gives them."""

    def __len__(self) -> int: ...

    def sample(self, index: int, /) -> Sample: ...


def box_filled(box: Tensor | Sequence[float], size: tuple[int, int]) -> Tensor:
    """Every pixel of an image of size (H, W) whose index lies in the box -> (H, W) bool."""
    x0, y0, x1, y1 = (float(side) for side in box)
    x, y = _grid(size)
    return (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)


def inscribed_ellipse(box: Tensor | Sequence[float], size: tuple[int, int]) -> Tensor:
    """The largest axis-parallel ellipse in the box: pixels of (H, W) whose centre lies in it -> (H, W) bool.

    Radii are half the number of columns and rows of the box, so the ellipse touches the outer pixel edges."""
    x0, y0, x1, y1 = (float(side) for side in box)
    x, y = _grid(size)
    across = (x - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2)
    down = (y - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2)
    return across**2 + down**2 <= 1


TRIVIAL: Mapping[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "box_filled": box_filled,
    "inscribed_ellipse": inscribed_ellipse,
}


def trivial_masks(sample: Sample, prompt: Prompt) -> dict[str, Tensor]:
    """Each trivial mask (H, W) bool of one image at original size, keyed by the names in `TRIVIAL`.

    `prompt` "box": the exact box around the truth (the frame where the truth is empty); else the image's frame."""
    truth = torch.from_numpy(sample.mask)
    height, width = sample.mask.shape
    frame = torch.tensor([0.0, 0.0, width - 1.0, height - 1.0])
    box = box_of(truth) if prompt == "box" and bool(truth.any()) else frame
    return {name: draw(box, (height, width)) for name, draw in TRIVIAL.items()}


def trivial_scores(dataset: Samples, prompt: Prompt) -> dict[str, list[ImageScore]]:
    """Scores of each trivial mask on each image of a data set, keyed by the names in `TRIVIAL`."""
    scores: dict[str, list[ImageScore]] = {name: [] for name in TRIVIAL}
    for index in range(len(dataset)):
        sample = dataset.sample(index)
        truth = torch.from_numpy(sample.mask)
        for name, mask in trivial_masks(sample, prompt).items():
            scores[name].append(ImageScore(id=sample.id, iou=metrics.iou(mask, truth), dice=metrics.dice(mask, truth)))
    return scores


def _grid(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Column indices (1, W) and row indices (H, 1) as float64."""
    height, width = size
    x = torch.arange(width, dtype=torch.float64)[None, :]
    y = torch.arange(height, dtype=torch.float64)[:, None]
    return x, y
