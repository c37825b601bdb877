"""The objective of a training step: structure loss, the two information terms of InfoSAM, feature distillation.

Letters in shapes: B images of this process, S side of the canvas.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from infosam.config import RunConfig
from infosam.distributed import gather_rows
from infosam.information import entropy, gram, mutual_information
from infosam.losses import relation_compression, relation_distillation, structure_loss
from infosam.peft.conv_lora import auxiliary_losses
from infosam.sam.forward import SamOutput
from infosam.student import Student


class Objective(NamedTuple):
    """The scalar to minimise, its terms by name, and what is only watched, in bits.

    Terms are unweighted, but for those that the PEFT method itself asks for."""

    total: Tensor
    terms: dict[str, Tensor]
    watched: dict[str, Tensor]


def objective(
    config: RunConfig, student: Student, output: SamOutput, teacher: SamOutput | None, mask: Tensor
) -> Objective:
    """Loss of one batch; `mask` (B, S, S) bool on the padded canvas, `teacher` None where no term needs one.

    In data-parallel training the information terms are those of the global batch, equal on all processes; the other
    terms are means over this process' images. Always float32, also under autocast."""
    with torch.autocast(mask.device.type, enabled=False):
        logits = F.interpolate(output.logits.float(), mask.shape[1:], mode="bilinear", align_corners=False)
        terms = {"structure": structure_loss(logits, mask.unsqueeze(1).float(), config.loss.structure)}
        watched: dict[str, Tensor] = {}
        total = terms["structure"]
        if teacher is not None and config.info.relational:
            information, watched = _information(student, output, teacher)
            total = total + config.info.compression * information["compression"]
            total = total + config.info.distillation * information["distillation"]
            terms |= information
        if teacher is not None and config.info.features > 0:
            terms["features"] = F.mse_loss(output.features.float(), teacher.features.float())
            total = total + config.info.features * terms["features"]
        for name, term in auxiliary_losses(student.sam).items():
            terms[name] = term
            total = total + term
    return Objective(total, terms, watched)


def _information(
    student: Student, output: SamOutput, teacher: SamOutput
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Both information terms over the global batch, and the quantities they are made of."""
    features, token = teacher.features.float(), teacher.mask_token.float()
    own = student.relation(output.features.float(), output.mask_token.float())
    relation_teacher, relation_student = gather_rows(student.relation(features, token)), gather_rows(own)
    terms = {
        "compression": relation_compression(gather_rows(features), gather_rows(token), relation_teacher),
        "distillation": relation_distillation(relation_teacher, relation_student),
    }
    with torch.no_grad():
        gram_teacher, gram_student = gram(relation_teacher), gram(relation_student)
        watched = {
            "entropy_teacher": entropy(gram_teacher),
            "entropy_student": entropy(gram_student),
            "mutual_information": mutual_information(gram_teacher, gram_student),
        }
    return terms, watched
