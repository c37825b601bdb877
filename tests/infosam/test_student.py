"""The model that learns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from infosam.config import RunConfig
from infosam.sam.weights import BaseSam
from infosam.student import build_student

Configure = Callable[..., RunConfig]


def test_its_groups_are_everything_that_trains(tiny_base: BaseSam, configure: Configure) -> None:
    student = build_student(tiny_base, configure())
    groups = student.groups()
    assert list(groups) == ["encoder", "decoder", "relation"]
    inside = {id(p) for p in student.sam.parameters() if p.requires_grad}
    assert {id(p) for p in groups["encoder"] + groups["decoder"]} == inside
    assert len(groups["encoder"]) == 6 * 2
    assert build_student(tiny_base, configure(peft={"kind": "decoder"})).groups()["encoder"] == []


def test_its_relation_module_has_the_width_of_the_decoder(tiny_base: BaseSam, configure: Configure) -> None:
    student = build_student(tiny_base, configure())
    assert student.relation.query.weight.shape == (128, 128)


def test_the_relation_module_follows_the_seed_alone(tiny_base: BaseSam, configure: Configure) -> None:
    weights = [
        build_student(tiny_base, configure(train={"seed": seed}, peft={"kind": kind})).relation.query.weight
        for seed, kind in ((0, "lora"), (0, "adapter"), (1, "lora"))
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_tensors_go_out_and_back(tiny_base: BaseSam, configure: Configure) -> None:
    student, other = (build_student(tiny_base, configure(train={"seed": seed})) for seed in (0, 1))
    other.load_tensors(student.tensors())
    assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in student.tensors().items())


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_other_names_are_refused(tiny_base: BaseSam, configure: Configure, change: str) -> None:
    student = build_student(tiny_base, configure())
    tensors = student.tensors()
    if change == "missing":
        del tensors["relation.query.bias"]
    else:
        tensors["relation.more"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"do not fit this configuration; 1 differ, first: \['relation\."):
        student.load_tensors(tensors)
