"""SAM's attention in forms that cost less than segment_anything's, with the same parameters and results.

In the image encoder, without the bias matrices that the package builds:
The decomposed relative positions add rel_h[query, row of key] + rel_w[query, column of key] to every score. Both are
inner products of the query's two bias rows with one-hot codes of the key's row and column, so they join the scores as
further channels: q.k + rel_h + rel_w = [q, rel_h, rel_w].[k, onehot_row, onehot_column]. The result is the same sum in
another order (about 3e-7 relative in float32), and a score is written once instead of three times.

In the mask decoder, many pixels ask few tokens: a softmax over seven neighbours in memory takes a CPU longer than all
products around it, so the scores are laid out with the pixels side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from segment_anything.modeling.transformer import Attention as DecoderAttention
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ALIGNMENT = 8
"""Fused kernels take head dimensions that are multiples of this."""
MANY_TOKENS = 400
"""From so many tokens on, scores of all pairs are too large to keep for the way back."""
MOST_TOKENS = 1024
"""From so many tokens on, the fused kernel's way back is faster in bfloat16 than computing the scores again."""


class FusedAttention(Attention):  # type: ignore[misc]  # the package has no types
    """The package's attention with another `forward`; parameters, names and values are its own."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        batch, height, width, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = with_positions(self, q, k, height, width)
        projected: Tensor = self.proj(_mixed(query, key, v).transpose(1, 2).reshape(batch, height, width, -1))
        return projected


def with_positions(attention: Attention, q: Tensor, k: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Queries, scaled, and keys (B, heads, tokens, channels) with the channels that carry the positions."""
    scaled = q * attention.scale
    if not attention.use_rel_pos:
        return scaled, k
    grid = q.unflatten(2, (height, width))
    rows = torch.einsum("bnhwc,hkc->bnhwk", grid, get_rel_pos(height, height, attention.rel_pos_h).to(q.dtype))
    columns = torch.einsum("bnhwc,wkc->bnhwk", grid, get_rel_pos(width, width, attention.rel_pos_w).to(q.dtype))
    query = torch.cat([scaled, rows.flatten(2, 3), columns.flatten(2, 3)], dim=-1)
    codes = position_codes(height, width, k.dtype, k.device)
    return query, torch.cat([k, codes.expand(*k.shape[:2], -1, -1)], dim=-1)


class TurnedAttention(DecoderAttention):  # type: ignore[misc]
    """The package's attention of the mask decoder with another `forward`; parameters and names are its own."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, C), (B, M, C), (B, M, C) -> (B, N, C)."""
        query, key, value = (
            self._separate_heads(project(x), self.num_heads)
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        scale = 1 / math.sqrt(query.shape[-1])
        if query.shape[-2] > key.shape[-2] and not query.is_cuda:
            shares = (key @ query.transpose(-2, -1) * scale).softmax(dim=-2).transpose(-2, -1)
        else:
            shares = (query @ key.transpose(-2, -1) * scale).softmax(dim=-1)
        projected: Tensor = self.out_proj(self._recombine_heads(shares @ value))
        return projected


OURS: Mapping[type, type] = {Attention: FusedAttention, DecoderAttention: TurnedAttention}


def swap_attention(sam: Sam) -> None:
    """Every attention in our form, in place. Copies and state dictionaries keep working."""
    _reclass(sam, OURS)


def restore_attention(sam: Sam) -> None:
    """Every attention in the package's own form again, in place."""
    _reclass(sam, {ours: package for package, ours in OURS.items()})


def _reclass(sam: Sam, classes: Mapping[type, type]) -> None:
    for module in sam.modules():
        module.__class__ = classes.get(type(module), type(module))


def position_codes(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One-hot row and column of every token, (height * width, height + width)."""
    rows = torch.eye(height, dtype=dtype, device=device).repeat_interleave(width, dim=0)
    columns = torch.eye(width, dtype=dtype, device=device).repeat(height, 1)
    return torch.cat([rows, columns], dim=1)


def _mixed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """By the form that `benchmarks/attention.py` found best; an additive mask was the fastest way back nowhere.

    On a CPU the fused kernel is slow for the few tokens of a window, and its way back in bfloat16."""
    tokens = query.shape[-2]
    if query.is_cuda:
        return fused(query, key, value)
    if tokens < MANY_TOKENS:
        return plain(query, key, value)
    slow_back = torch.is_grad_enabled() and query.dtype != torch.float32 and tokens < MOST_TOKENS
    return recomputed(query, key, value) if slow_back else fused(query, key, value)


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Two products and a softmax between them."""
    return (query @ key.transpose(-2, -1)).softmax(dim=-1).to(value.dtype) @ value


def recomputed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As `plain`, image by image; the scores are not kept but computed again on the way back.

    One image's scores fit the processor's cache, and leave less of the memory in pieces than those of a batch."""
    parts = zip(query.split(1), key.split(1), value.split(1), strict=True)
    return torch.cat([checkpoint(plain, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One call of torch's fused attention; all three are padded with zeros to a width its kernels accept."""
    channels = value.shape[-1]
    width = -(-query.shape[-1] // ALIGNMENT) * ALIGNMENT
    query, key, value = (F.pad(tensor, (0, width - tensor.shape[-1])) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :channels]
