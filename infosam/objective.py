"""The objective of a training step: structure loss, the two information terms of InfoSAM, feature distillation.

Letters in shapes: B images of this process, S side of the canvas.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from infosam.config import RunConfig
from infosam.device_values import numbers
from infosam.distributed import gather_rows
from infosam.information import entropy, gram, mutual_information
from infosam.losses import relation_compression, relation_distillation, structure_loss
from infosam.peft.conv_lora import auxiliary_losses
from infosam.sam.forward import SamOutput, Tokens
from infosam.student import Student


class Objective(NamedTuple):
    """The scalar to minimise, its terms by name, and what is only watched, in bits.

    Terms are unweighted, but for those that the PEFT method itself asks for."""

    total: Tensor
    terms: dict[str, Tensor]
    watched: dict[str, Tensor]


def objective(
    config: RunConfig,
    student: Student,
    output: SamOutput,
    teacher: Tokens | None,
    mask: Tensor,
    *,
    relational: bool = True,
) -> Objective:
    """Loss of one batch; `mask` (B, S, S) bool on the padded canvas, `teacher` None where no term needs one.

    `relational` False leaves the information terms out, for a part of a batch: see `information`. In data-parallel
    training the information terms are those of the global batch, equal on all processes; the other terms are means over
    this process' images. Always float32, also under autocast."""
    with torch.autocast(mask.device.type, enabled=False):
        logits = F.interpolate(output.logits.float(), mask.shape[1:], mode="bilinear", align_corners=False)
        terms = {"structure": structure_loss(logits, mask.unsqueeze(1).float(), config.loss.structure)}
        watched: dict[str, Tensor] = {}
        total = terms["structure"]
        if teacher is not None and config.info.relational and relational:
            weighted, gathered, watched = information(config, student, output.tokens, teacher)
            total = total + weighted
            terms |= gathered
        if teacher is not None and config.info.features > 0:
            terms["features"] = F.mse_loss(output.features.float(), teacher.features.float())
            total = total + config.info.features * terms["features"]
        for name, term in auxiliary_losses(student.sam).items():
            terms[name] = term
            total = total + term
    return Objective(total, terms, watched)


def information(config: RunConfig, student: Student, output: Tokens, teacher: Tokens) -> Objective:
    """Both information terms over the global batch, weighted, and the quantities they are made of.

    `output` and `teacher` hold all of this process' images: a Gram matrix of fewer is another objective."""
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
    total = config.info.compression * terms["compression"] + config.info.distillation * terms["distillation"]
    return Objective(total, terms, watched)


def values_of(result: Objective) -> dict[str, float]:
    """An objective as metrics: "loss/total", "loss/structure", "info/entropy_student" and so on."""
    terms = {f"loss/{name}": term for name, term in {"total": result.total, **result.terms}.items()}
    return numbers(terms | {f"info/{name}": value for name, value in result.watched.items()})
