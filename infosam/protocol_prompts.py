"""The prompt of each image at evaluation, as a protocol makes it from the truth.

Chance comes from (protocol seed, position of the image), so batches and models do not change anybody's prompt.
Letters in shapes: B images, N points of a prompt, S side of the canvas.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infosam.chance import seed_of
from infosam.data.dataset import Batch
from infosam.data.prompts import Prompts, box_of, box_prompt, frame_prompt, several_points_prompt
from infosam.prompt_files import ImagePrompt, to_canvas
from infosam.protocols import STRICT, Prompt, ProtocolConfig


def evaluation_prompts(
    truths: Sequence[NDArray[np.bool_]], batch: Batch, prompt: Prompt, protocol: ProtocolConfig = STRICT
) -> Prompts:
    """One prompt per image of a batch, whose masks at original size (H, W) are `truths`. Under `strict` the exact box around the truth at original size, brought to the
    canvas; without any prompt, and for an empty truth, the frame."""
    if prompt == "none":
        return frame_prompt(batch.resized_hw)
    if prompt == "box" and protocol.boxes_from == "original":
        rows = [_exact_box(truth, hw) for truth, hw in zip(truths, batch.resized_hw, strict=True)]
    else:
        make = _points if prompt == "points" else _canvas_box
        rows = [
            make(batch.mask[row : row + 1], batch.resized_hw[row], protocol, image_generator(protocol.seed, index))
            for row, index in enumerate(batch.indices)
        ]
    return Prompts(points=torch.cat([row.points for row in rows]), labels=torch.cat([row.labels for row in rows]))


def image_generator(seed: int, index: int) -> torch.Generator:
    """Chance for one image of a split."""
    return torch.Generator().manual_seed(seed_of(seed, index))


def shift_box(box: Tensor, max_shift_px: int, generator: torch.Generator) -> Tensor:
    """A box (4,) x0, y0, x1, y1 moved as the released `get_single_box_from_mask` moves it.

    One whole number of pixels per axis from -m to m - 1, with m the smaller of `max_shift_px` and half of the box's
    shorter side (differences of pixel indices, rounded down as there); cut at 0, not at the far side. The released
    code crashes for m = 0; here such a box stays where it is."""
    sides = box[2:] - box[:2]
    reach_px = min(max_shift_px, int(float(sides.min()) * 0.1 * 5))  # not 0.5: the roundings of the original
    if reach_px == 0:
        return box
    shift = torch.randint(-reach_px, reach_px, (2,), generator=generator).to(box)
    return (box + shift.repeat(2)).clamp(min=0)


def _exact_box(truth: NDArray[np.bool_], resized: tuple[int, int]) -> Prompts:
    known = ImagePrompt(box=tuple(box_of(torch.from_numpy(truth)).tolist())) if truth.any() else ImagePrompt()
    return to_canvas(known, (truth.shape[0], truth.shape[1]), resized)


def _canvas_box(
    mask: Tensor, resized: tuple[int, int], protocol: ProtocolConfig, generator: torch.Generator
) -> Prompts:
    """The box around a mask (1, S, S) bool, jittered or shifted."""
    prompts = box_prompt(mask, jitter=protocol.box_jitter, generator=generator, resized_hw=[resized])
    if not mask.any():
        if protocol.empty_box == "origin":
            return Prompts(points=torch.zeros_like(prompts.points), labels=prompts.labels)
    elif protocol.box_shift_px:
        moved = shift_box(prompts.points.view(4), protocol.box_shift_px, generator)
        return Prompts(points=moved.view(1, 2, 2), labels=prompts.labels)
    return prompts


def _points(mask: Tensor, resized: tuple[int, int], protocol: ProtocolConfig, generator: torch.Generator) -> Prompts:
    """Points on and beside the object of a mask (1, S, S) bool."""
    return several_points_prompt(
        mask,
        inside=protocol.points_inside,
        outside=protocol.points_outside,
        generator=generator,
        resized_hw=None if protocol.points_on_padding else [resized],
    )
