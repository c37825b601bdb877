"""One training step as the released InfoSAM trainer takes it: the baseline that `train_step.py` measures against.

Kept faithful where it costs: the frozen teacher's encoder runs on every step, attention matrices are materialised with
their relative positions, everything is float32, masks are decoded image by image with all four mask tokens, for teacher
and student, and the boundary weights come from one 31 x 31 pooling. Losses and optimiser are ours, which equal the
published formulas, so the loss curves of both sides can be compared.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from torch import Tensor

from infosam.config import RunConfig
from infosam.data.dataset import Batch
from infosam.data.prompts import box_of
from infosam.losses import relation_compression, relation_distillation
from infosam.sam.attention import restore_attention
from infosam.sam.weights import BaseSam
from infosam.student import Student, build_student


class ReferenceStep:
    """A student, its teacher and the step; prompts are the exact boxes of the masks."""

    def __init__(self, base: BaseSam, config: RunConfig, device: torch.device) -> None:
        self.config = config
        self.student: Student = build_student(base, config)
        self.teacher = copy.deepcopy(base.sam).to(device)
        restore_attention(self.teacher)
        restore_attention(self.student.sam)
        self.student.sam.train()

    def loss(self, batch: Batch) -> Tensor:
        """The objective of one batch; `batch` is on the device."""
        boxes = torch.stack([box_of(mask) for mask in batch.mask]).float()
        with torch.no_grad():
            known = self.teacher.image_encoder(batch.image)
            taught = [_decode(self.teacher, known[i : i + 1], boxes[i : i + 1]) for i in range(len(boxes))]
        own = self.student.sam.image_encoder(batch.image)
        learnt = [_decode(self.student.sam, own[i : i + 1], boxes[i : i + 1]) for i in range(len(boxes))]
        logits = F.interpolate(
            torch.cat([mask for mask, _ in learnt]), batch.mask.shape[1:], mode="bilinear", align_corners=False
        )
        features = known.flatten(2).transpose(1, 2)
        token = torch.cat([token for _, token in taught])
        relation = self.student.relation(features, token)
        relation_own = self.student.relation(own.flatten(2).transpose(1, 2), torch.cat([token for _, token in learnt]))
        info = self.config.info
        return (
            _structure_loss(logits, batch.mask.unsqueeze(1).float())
            + info.compression * relation_compression(features, token, relation)
            + info.distillation * relation_distillation(relation, relation_own)
        )


def _decode(sam: Sam, embedding: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Mask logits (1, 1, h, w) and mask token (1, 1, D) of one image, the way of the package's `predict_masks`."""
    decoder = sam.mask_decoder
    sparse, dense = sam.prompt_encoder(points=None, boxes=box, masks=None)
    learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([learned[None].expand(len(sparse), -1, -1), sparse], dim=1)
    source = torch.repeat_interleave(embedding, len(tokens), dim=0) + dense
    position = torch.repeat_interleave(sam.prompt_encoder.get_dense_pe(), len(tokens), dim=0)
    attended, source = decoder.transformer(source, position, tokens)
    mask_tokens = attended[:, 1 : 1 + decoder.num_mask_tokens]
    upscaled = decoder.output_upscaling(source.transpose(1, 2).view(embedding.shape))
    weights = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1)
    batch, channels, height, width = upscaled.shape
    masks = (weights @ upscaled.view(batch, channels, height * width)).view(batch, -1, height, width)
    decoder.iou_prediction_head(attended[:, 0])
    return masks[:, :1], mask_tokens[:, :1]


def _structure_loss(logits: Tensor, target: Tensor) -> Tensor:
    """As released: the `official` variant of `infosam.losses.structure_loss`, pooled in two dimensions at once."""
    weight = 1 + 5 * (F.avg_pool2d(target, kernel_size=31, stride=1, padding=15) - target).abs()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
    probability = logits.sigmoid()
    overlap = (probability * target * weight).sum(dim=(2, 3))
    total = ((probability + target) * weight).sum(dim=(2, 3))
    return (cross_entropy + 1 - (overlap + 1) / (total - overlap + 1)).mean()
