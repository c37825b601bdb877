"""The objective: which terms count, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from infosam.config import RunConfig
from infosam.data.dataset import collate
from infosam.data.prompts import frame_prompt
from infosam.information import entropy, gram, mutual_information
from infosam.materials import Materials
from infosam.objective import Objective, objective
from infosam.sam.forward import SamOutput, Tokens, forward
from infosam.student import Student, build_student

Configure = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def outputs(materials: Materials, configure: Configure) -> tuple[Student, SamOutput, Tokens, torch.Tensor]:
    """A student away from its start, what it and its teacher say of three images, and the masks."""
    batch = collate([materials.train_set[index] for index in range(3)])
    prompts = frame_prompt(batch.resized_hw)
    student = build_student(materials.base, configure(peft={"kind": "adapter", "width": 4, "zero_init": False}))
    with torch.no_grad():
        teacher = forward(materials.base.sam, batch.image, prompts)
        output = forward(student.sam, batch.image, prompts)
    return student, output, teacher.tokens, batch.mask


def compute(outputs: Any, config: RunConfig) -> Objective:
    student, output, teacher, mask = outputs
    return objective(config, student, output, teacher, mask)


def test_the_total_is_the_weighted_sum(outputs: Any, configure: Configure) -> None:
    result = compute(outputs, configure(info={"compression": 0.3, "distillation": 0.7, "features": 2.0}))
    terms = result.terms
    assert terms.keys() == {"structure", "compression", "distillation", "features"}
    expected = terms["structure"] + 0.3 * terms["compression"] + 0.7 * terms["distillation"] + 2.0 * terms["features"]
    assert torch.allclose(result.total, expected)


def test_feature_distillation_is_the_error_of_the_embeddings(outputs: Any, configure: Configure) -> None:
    result = compute(outputs, configure(info={"compression": 0, "distillation": 0, "features": 1.0}))
    _, output, teacher, _ = outputs
    assert result.terms.keys() == {"structure", "features"}
    assert result.watched == {}
    assert torch.equal(result.terms["features"], F.mse_loss(output.features, teacher.features))
    assert result.terms["features"] > 0


def test_plain_peft_has_one_term(outputs: Any, configure: Configure) -> None:
    student, output, _, mask = outputs
    result = objective(configure(info={"compression": 0, "distillation": 0}), student, output, None, mask)
    assert result.terms.keys() == {"structure"}
    assert torch.equal(result.total, result.terms["structure"])


def test_what_is_watched_are_the_relations_of_teacher_and_student(outputs: Any, configure: Configure) -> None:
    student, output, teacher, _ = outputs
    watched = compute(outputs, configure()).watched
    theirs = gram(student.relation(teacher.features, teacher.mask_token))
    ours = gram(student.relation(output.features, output.mask_token))
    assert torch.allclose(watched["entropy_teacher"], entropy(theirs))
    assert torch.allclose(watched["entropy_student"], entropy(ours))
    assert torch.allclose(watched["mutual_information"], mutual_information(theirs, ours))
    assert not any(value.requires_grad for value in watched.values())


def test_under_autocast_it_stays_float32(outputs: Any, configure: Configure) -> None:
    student, output, teacher, mask = outputs
    with torch.autocast("cpu", torch.bfloat16):
        result = objective(configure(), student, output, teacher, mask)
    expected = objective(configure(), student, output, teacher, mask)
    assert result.total.dtype == torch.float32
    assert all(torch.equal(result.terms[name], expected.terms[name]) for name in expected.terms)
