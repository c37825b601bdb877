"""What the router looks at: means and deviations of the frozen encoder's tokens over the picture, without its padding.

Letters in shapes: B images, (h, w) image tokens, C channels of the encoder, D of the decoder, F of the feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from infosam.sam.encoder import FrozenPass
from infosam.strict import Strict

Tap = Annotated[int, Field(ge=0)] | Literal["neck"]
MIN_INNER = 3
"""Tokens a side must keep after its outer ring went; a narrower picture keeps its ring."""


class FeatureConfig(Strict):
    """Where the encoder is tapped, and what is taken there. Chosen by validation, see docs/routing.md."""

    taps: tuple[Tap, ...] = Field(default=(2,), min_length=1)
    """Tokens after so many blocks (0: the patches), or after the `neck`."""
    spread: bool = True
    """Take the standard deviation of each channel over the tokens beside its mean."""
    ring: bool = True
    """Leave the outermost tokens out: frames, borders and captions stand there."""


def features(frozen: FrozenPass, resized: Sequence[tuple[int, int]], patch_px: int, config: FeatureConfig) -> Tensor:
    """(B, F) float32 of unit length, each part (tap; mean or deviation) with the same share of it.

    `resized` are the sizes (height, width) of the pictures on the canvas in pixels."""
    parts = []
    for tap in config.taps:
        tokens = frozen.embeddings().permute(0, 2, 3, 1) if tap == "neck" else frozen.enter(tap)
        inner = [_inner(one, size, patch_px, ring=config.ring) for one, size in zip(tokens, resized, strict=True)]
        parts.append(torch.stack([one.mean(dim=0) for one in inner]))
        if config.spread:
            parts.append(torch.stack([one.std(dim=0, correction=0) for one in inner]))
    return F.normalize(torch.cat([F.normalize(part.float(), dim=1) for part in parts], dim=1), dim=1)


def _inner(tokens: Tensor, size: tuple[int, int], patch_px: int, *, ring: bool) -> Tensor:
    """(h, w, C) -> (n, C): the tokens that show nothing but picture, at least one."""
    height, width = (max(1, side // patch_px) for side in size)
    edge = int(ring and min(height, width) >= MIN_INNER + 2)
    return tokens[edge : height - edge, edge : width - edge].reshape(-1, tokens.shape[-1])
