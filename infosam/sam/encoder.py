"""SAM's image encoder in two parts, so that blocks nobody trains need not run again for an image seen before.

Letters in shapes: B images, S side of the canvas, (h, w) image tokens, C channels of the encoder, D of the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def encode(
    encoder: ImageEncoderViT, x: Tensor, *, start: int = 0, recompute: bool = False, compiled: bool = False
) -> Tensor:
    """Image embeddings (B, D, h, w), as the package's own forward.

    `x`: images (B, 3, S, S), or with `start` > 0 what `enter_block` gave for that block. `recompute` keeps the input of
    each block only and computes the rest again on the way back (Chen et al. 2016): the memory of one block instead of
    all, for about a third more time; the gradients are the same. `compiled` runs each block through torch.compile:
    blocks of equal shapes share one graph, see `forget_graphs`."""
    if start == 0:
        x = _patches(encoder, x)
    run = _compiled() if compiled else _run
    for block in encoder.blocks[start:]:
        x = checkpoint(run, block, x, use_reentrant=False) if recompute else run(block, x)
    embeddings: Tensor = encoder.neck(x.permute(0, 3, 1, 2))
    return embeddings


def enter_block(encoder: ImageEncoderViT, images: Tensor, number: int) -> Tensor:
    """The input (B, h, w, C) of block `number` for `images` (B, 3, S, S)."""
    x = _patches(encoder, images)
    for block in encoder.blocks[:number]:
        x = block(x)
    return x


def forget_graphs() -> None:
    """Drops what was compiled for an earlier student. One of another rank needs graphs of its own, and torch keeps only
    so many of a function before it goes on uncompiled."""
    torch.compiler.reset()


@cache
def _compiled() -> Callable[[nn.Module, Tensor], Tensor]:
    """Made on first use: what torch imports for it takes seconds."""
    return torch.compile(_run, dynamic=False)


def _run(block: nn.Module, x: Tensor) -> Tensor:
    entered: Tensor = block(x)
    return entered


def _patches(encoder: ImageEncoderViT, images: Tensor) -> Tensor:
    x: Tensor = encoder.patch_embed(images)
    return x if encoder.pos_embed is None else x + encoder.pos_embed
