"""The three terms of InfoSAM's objective: structure loss, relation compression, relation distillation.

Letters in shapes: B images, L image tokens, D channels, (H, W) pixels of the canvas.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from infosam.information import entropy, gram, joint_entropy, mutual_information


def relation_compression(features: Tensor, token: Tensor, relation: Tensor) -> Tensor:
    """H(relation) - H(features, token, relation) in bits: I(features, token; relation) without its constant part.

    Features (B, L, D), token (B, 1, D) and relation (B, L) are the teacher's. InfoSAM equation 10; the paper writes
    N x N Gram matrices, the released code uses the batch, and so do we, so with B = 1 this is identically 0."""
    relation_gram = gram(relation)
    return entropy(relation_gram) - joint_entropy(gram(features), gram(token), relation_gram)


def relation_distillation(relation_teacher: Tensor, relation_student: Tensor) -> Tensor:
    """Minus the mutual information of the two relations (B, L), in bits, between -log2 B and 0. InfoSAM equation 11.

    The teacher's relation is not detached: the relation module learns through both branches, as released."""
    return -mutual_information(gram(relation_teacher), gram(relation_student))


def structure_loss(
    logits: Tensor, target: Tensor, variant: Literal["official", "weighted"] = "official", *, window_px: int = 31
) -> Tensor:
    """Boundary-weighted IoU loss plus binary cross-entropy (PraNet, F3Net) of logits (B, 1, H, W); a scalar.

    Pixels weigh 1 + 5 |mean over `window_px` squared - target|. `official`: the cross-entropy is a plain mean, because
    the released code passes reduce="none", which torch reads as true; `weighted`: weighted per image, as intended.
    `target` holds 0 and 1. Raises ValueError for another variant."""
    if variant not in ("official", "weighted"):
        raise ValueError(f"variant must be 'official' or 'weighted', got {variant!r}")
    target = target.to(logits.dtype)
    mean = _window_mean(target, window_px)
    weight = 1 + 5 * (mean - target).abs()
    probability = logits.sigmoid()
    overlap = (probability * target * weight).sum(dim=(2, 3))
    total = ((probability + target) * weight).sum(dim=(2, 3))
    iou_loss = 1 - (overlap + 1) / (total - overlap + 1)
    if variant == "official":
        return F.binary_cross_entropy_with_logits(logits, target) + iou_loss.mean()
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weighted_bce = (weight * bce).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
    return (weighted_bce + iou_loss).mean()


def _window_mean(target: Tensor, window_px: int) -> Tensor:
    """avg_pool2d with stride 1 and zero padding of a target of 0 and 1, from running sums along both directions: no
    more work for a larger window, and exact up to the division, since the sums are whole numbers."""
    columns = _window_sum(target, window_px)
    return _window_sum(columns.transpose(2, 3), window_px).transpose(2, 3) / window_px**2


def _window_sum(x: Tensor, window_px: int) -> Tensor:
    """Sums over `window_px` neighbours along the last direction, zeros beyond the edges."""
    margin = window_px // 2
    sums = F.pad(x, (margin + 1, margin)).cumsum(dim=-1)
    return sums[..., window_px:] - sums[..., :-window_px]
