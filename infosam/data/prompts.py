"""Prompts from masks. Every prompt is points with labels, the form in which SAM's prompt encoder embeds boxes too.

Coordinates are (x, y) pixel indices on the canvas, (0, 0) the centre of the top-left pixel; SAM adds the half pixel
itself. Labels: 1 foreground point, 0 background point, 2 top-left and 3 bottom-right corner of a box, -1 padding.
Letters in shapes: B images, N points of a prompt, S side of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infosam.config import PromptConfig
from infosam.device_values import to_device

BOX_LABELS = (2, 3)
POINT_LABELS = (1, -1)
INSIDE, OUTSIDE, PADDING = 1, 0, -1


@dataclass(frozen=True)
class Prompts:
    """One prompt per image."""

    points: Tensor  # (B, N, 2) float32, (x, y) in canvas pixels
    labels: Tensor  # (B, N) int64

    def to(self, device: torch.device | str) -> Prompts:
        """The same prompts on another device."""
        return Prompts(to_device(self.points, device), to_device(self.labels, device))


def box_of(mask: Tensor) -> Tensor:
    """(H, W) bool -> (4,) float32 x0, y0, x1, y1: first and last foreground column and row, both inside the object.

    Raises ValueError for an empty mask, which has no box."""
    if not mask.any():
        raise ValueError("an empty mask has no box")
    return _boxes(mask[None], None)[0]


def frame_prompt(resized_hw: Sequence[tuple[int, int]]) -> Prompts:
    """No prompt: the box around all valid pixels of each image of resized size (h, w), without its padding."""
    return _as_box_prompt(_frames(resized_hw))


def box_prompt(
    masks: Tensor,
    *,
    jitter: float,
    generator: torch.Generator | None,
    resized_hw: Sequence[tuple[int, int]] | None = None,
) -> Prompts:
    """The box around each mask of (B, S, S) bool, each side shifted by U(-jitter, jitter) times the box's size.

    `jitter` 0 gives exact boxes and needs no generator. Boxes stay inside the frame and at least 1 px wide when
    jittered. An empty mask gets the frame: of `resized_hw` if given, else the whole canvas."""
    if jitter < 0:
        raise ValueError(f"jitter must be >= 0, got {jitter}: it is the largest shift as a share of the box's size")
    boxes = _boxes(masks, resized_hw)
    if jitter == 0:
        return _as_box_prompt(boxes)
    if generator is None:
        raise ValueError(f"jitter {jitter} needs a generator: chance is an argument here")
    noise = (_uniform((len(boxes), 4), generator).to(boxes.device) * 2 - 1) * jitter
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    limits = _limits(masks, resized_hw)
    return _as_box_prompt(_clip(boxes + noise * sizes, limits))


def point_prompt(
    masks: Tensor, *, generator: torch.Generator, resized_hw: Sequence[tuple[int, int]] | None = None
) -> Prompts:
    """One random foreground pixel of each mask of (B, S, S) bool, and a padding point, so N is 2 as for boxes.

    An empty mask gets the frame as box: of `resized_hw` if given, else the whole canvas."""
    prompts = _as_box_prompt(_boxes(masks, resized_hw))
    shares = _uniform((len(masks),), generator)
    for index, (mask, share) in enumerate(zip(masks, shares.tolist(), strict=True)):
        pixels = mask.nonzero()
        if len(pixels):
            y, x = pixels[min(int(share * len(pixels)), len(pixels) - 1)]
            prompts.points[index] = torch.stack([x, y, x.new_zeros(()), x.new_zeros(())]).view(2, 2)
            prompts.labels[index] = prompts.labels.new_tensor(POINT_LABELS)
    return prompts


def several_points_prompt(
    masks: Tensor,
    *,
    inside: int,
    outside: int,
    generator: torch.Generator,
    resized_hw: Sequence[tuple[int, int]] | None = None,
) -> Prompts:
    """`inside` random pixels of each mask of (B, S, S) bool, `outside` of its frame's background, and a padding point.

    Pixels are drawn with repetition. Where there are none to draw, as in an empty mask, the point is padding."""
    height, width = masks.shape[1:]
    frames = resized_hw if resized_hw is not None else [(height, width)] * len(masks)
    points = torch.zeros(len(masks), inside + outside + 1, 2)
    labels = torch.full((len(masks), inside + outside + 1), PADDING, dtype=torch.int64)
    shares = _uniform((len(masks), inside + outside), generator)
    for row, (mask, (bottom, right)) in enumerate(zip(masks, frames, strict=True)):
        frame = mask[:bottom, :right]
        for label, start, count in ((INSIDE, 0, inside), (OUTSIDE, inside, outside)):
            pixels = (frame if label == INSIDE else ~frame).nonzero().cpu()
            if len(pixels):
                chosen = (shares[row, start : start + count].cpu() * len(pixels)).long().clamp(max=len(pixels) - 1)
                points[row, start : start + count] = pixels[chosen].flip(1).float()
                labels[row, start : start + count] = label
    return Prompts(points=points.to(masks.device), labels=labels.to(masks.device))


def training_prompts(
    masks: Tensor, resized_hw: Sequence[tuple[int, int]], shares: PromptConfig, *, batch_seed: int, seeds: Sequence[int]
) -> Prompts:
    """Prompts for one batch (B, S, S) bool: several points for all with probability `shares.points`, else a mixture.

    Chance comes from `batch_seed`, which all parts of a batch share, and one of `seeds` per sample, so that a batch
    divided over processes gets the prompts of the whole. Several points come to all samples or none: other prompts
    would have to be padded to their length, and padding changes what a box says."""
    several = bool(torch.rand((), generator=torch.Generator().manual_seed(batch_seed)) < shares.points)
    rows = []
    for number, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        one, frame = masks[number : number + 1], resized_hw[number : number + 1]
        if several:
            counts = {"inside": shares.points_inside, "outside": shares.points_outside}
            rows.append(several_points_prompt(one, **counts, generator=generator, resized_hw=frame))
        else:
            rows.append(mixed_prompts(one, frame, shares, generator=generator))
    return Prompts(points=torch.cat([row.points for row in rows]), labels=torch.cat([row.labels for row in rows]))


def mixed_prompts(
    masks: Tensor, resized_hw: Sequence[tuple[int, int]], shares: PromptConfig, *, generator: torch.Generator
) -> Prompts:
    """A box, a point or no prompt for each mask of (B, S, S) bool, in the proportion that these three have in `shares`.

    Draws a box and a point for every mask whatever its kind, so the generator advances alike in all runs."""
    weights = torch.tensor([shares.box, shares.point, shares.none], device=generator.device)
    kind = torch.multinomial(weights, len(masks), replacement=True, generator=generator).to(masks.device)
    boxes = box_prompt(masks, jitter=shares.box_jitter, generator=generator, resized_hw=resized_hw)
    points = point_prompt(masks, generator=generator, resized_hw=resized_hw)
    frames = frame_prompt(resized_hw).to(masks.device)
    return Prompts(
        points=_choose(kind == 0, boxes.points, _choose(kind == 1, points.points, frames.points)),
        labels=_choose(kind == 0, boxes.labels, _choose(kind == 1, points.labels, frames.labels)),
    )


def _choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(condition.view(-1, *[1] * (yes.ndim - 1)), yes, no)


def _boxes(masks: Tensor, resized_hw: Sequence[tuple[int, int]] | None) -> Tensor:
    """(B, S, S) -> (B, 4) float32; the frame where a mask is empty."""
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    x0, y0 = (_first(line) for line in (columns, rows))
    x1, y1 = (line.shape[1] - 1 - _first(line.flip(1)) for line in (columns, rows))
    boxes = torch.stack([x0, y0, x1, y1], dim=1).to(torch.float32)
    empty = ~rows.any(dim=1)
    return _choose(empty, _limits(masks, resized_hw), boxes)


def _first(line: Tensor) -> Tensor:
    return line.to(torch.uint8).argmax(dim=1)


def _frames(resized_hw: Sequence[tuple[int, int]]) -> Tensor:
    return torch.tensor([[0, 0, width - 1, height - 1] for height, width in resized_hw], dtype=torch.float32)


def _limits(masks: Tensor, resized_hw: Sequence[tuple[int, int]] | None) -> Tensor:
    height, width = masks.shape[1:]
    return _frames(resized_hw if resized_hw is not None else [(height, width)] * len(masks)).to(masks.device)


def _clip(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes inside `limits`, at least 1 px wide and high where the limits are."""
    first, last = limits[:, :2], limits[:, 2:]
    start = torch.minimum(torch.maximum(boxes[:, :2], first), torch.maximum(last - 1, first))
    end = torch.minimum(torch.maximum(boxes[:, 2:], start + 1), last)
    return torch.cat([start, end], dim=1)


def _as_box_prompt(boxes: Tensor) -> Prompts:
    labels = torch.tensor(BOX_LABELS, dtype=torch.int64, device=boxes.device)
    return Prompts(points=boxes.reshape(-1, 2, 2).clone(), labels=labels.repeat(len(boxes), 1))


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)
