"""SAM's image encoder in two parts, so that blocks nobody trains need not run again for an image seen before.

Letters in shapes: B images, S side of the canvas, (h, w) image tokens, C channels of the encoder, D of the decoder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
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


class FrozenPass:
    """What a frozen encoder makes of a batch, block by block, as far as someone asked for it.

    What enters the blocks in `keep` stays, for others to go on from; without the rest a batch takes the memory of a
    few blocks, not of all. Not thread-safe."""

    def __init__(self, encoder: ImageEncoderViT, images: Tensor, *, keep: Collection[int] = ()) -> None:
        """`images` (B, 3, S, S)."""
        self._encoder = encoder
        self._keep = frozenset(keep)
        self._inputs = {0: _patches(encoder, images)}

    def enter(self, number: int) -> Tensor:
        """The input (B, h, w, C) of block `number`; of the neck, for the number of blocks."""
        at = max(known for known in self._inputs if known <= number)
        x = self._inputs[at]
        for block in self._encoder.blocks[at:number]:
            x = _run(block, x)
            at += 1
            if at in self._keep:
                self._inputs[at] = x
        return x

    def embeddings(self) -> Tensor:
        """Image embeddings (B, D, h, w), as `encode` gives them."""
        x = self.enter(len(self._encoder.blocks))
        embeddings: Tensor = self._encoder.neck(x.permute(0, 3, 1, 2))
        return embeddings

    def rows(self, rows: Sequence[int]) -> FrozenPass:
        """The same for some images of the batch; what it computes further is theirs alone."""
        part = copy.copy(self)
        part._inputs = {number: x[list(rows)] for number, x in self._inputs.items()}
        return part


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
