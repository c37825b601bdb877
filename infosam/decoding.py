"""From image embeddings and what users say about their images to the odds of each pixel at the image's own size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor

from infosam.data.prompts import Prompts
from infosam.data.transforms import resized_hw, restore_logits
from infosam.prompt_files import ImagePrompt, check_inside, to_canvas
from infosam.sam.forward import decode


@dataclass(frozen=True)
class Placed:
    """Where an image lies on the canvas, and its prompt there. Sizes are (height, width)."""

    prompt: Prompts  # one row, in canvas pixels
    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]


def place(
    images: Sequence[NDArray[np.uint8]], prompts: Sequence[ImagePrompt | None] | None, canvas_px: int
) -> list[Placed]:
    """Images (H, W, 3) of any sizes with a prompt for each, or none, on a canvas of `canvas_px`.

    Raises DataError for a prompt outside its image, with the image's number if there are several."""
    given = [prompt or ImagePrompt() for prompt in prompts or [None] * len(images)]
    sizes = [(rgb.shape[0], rgb.shape[1]) for rgb in images]
    placed = []
    for number, (prompt, size) in enumerate(zip(given, sizes, strict=True)):
        check_inside(prompt, size, "prompt" if len(images) == 1 else f"prompt of image {number}")
        resized = resized_hw(*size, canvas_px)
        placed.append(Placed(to_canvas(prompt, size, resized), size, resized))
    return placed


def decode_placed(sam: Sam, embeddings: Tensor, placed: Sequence[Placed]) -> Tensor:
    """Logits (B, 1, h, w) on the CPU from embeddings (B, D, h', w').

    Prompts of equal length are decoded together: padding would be attended to, so a mask would depend on its
    neighbours' prompts."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, one in enumerate(placed):
        by_length[one.prompt.labels.shape[1]].append(row)
    parts = []
    for rows in by_length.values():
        together = Prompts(
            points=torch.cat([placed[row].prompt.points for row in rows]),
            labels=torch.cat([placed[row].prompt.labels for row in rows]),
        )
        parts.append(decode(sam, embeddings[rows], together.to(embeddings.device)).logits.cpu())
    order = torch.tensor([row for rows in by_length.values() for row in rows])
    return torch.cat(parts)[order.argsort()]


def at_own_size(logits: Tensor, placed: Sequence[Placed], canvas_px: int) -> Iterator[NDArray[np.float32]]:
    """Log odds (H, W) of each image from what `decode_placed` gave, made one after the other: they can be far larger
    than a canvas."""
    for one, low_res in zip(placed, logits, strict=True):
        yield restore_logits(low_res[None], canvas_px, [one.resized_hw], [one.original_hw])[0].numpy()
