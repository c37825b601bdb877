"""Optimiser, schedule and the gradient step."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from infosam.config import OptimConfig, RunConfig
from infosam.errors import Diverged
from infosam.materials import Materials
from infosam.optimisation import descend, learning_rate, make_optimizer
from infosam.student import build_student

Configure = Callable[..., RunConfig]


class TestSchedule:
    def test_it_rises_then_falls_to_the_floor(self) -> None:
        config = OptimConfig(lr=0.1, warmup_fraction=0.2, floor=0.1)
        rates = [learning_rate(config, step, 50) for step in range(50)]
        assert rates[:10] == pytest.approx([0.01 * step for step in range(1, 11)])
        assert rates[10] == pytest.approx(0.1)
        assert all(later < earlier for earlier, later in pairwise(rates[10:]))
        assert 0.01 < rates[-1] < 0.011
        assert learning_rate(config, 30, 50) == pytest.approx(0.01 + 0.09 * 0.5)

    def test_without_warm_up_it_starts_at_the_peak(self) -> None:
        assert learning_rate(OptimConfig(lr=0.1, warmup_fraction=0), 0, 10) == 0.1

    def test_each_group_has_its_share(self, materials: Materials, configure: Configure) -> None:
        config = configure(optim={"decoder_lr_ratio": 0.5, "weight_decay": 0.1})
        student = build_student(materials.base, config)
        groups = {group["name"]: group for group in make_optimizer(student, config.optim).param_groups}
        assert {name: group["share"] for name, group in groups.items()} == {
            "encoder": 1.0, "decoder": 0.5, "relation": 1.0,
        }  # fmt: skip
        assert all(group["weight_decay"] == 0.1 for group in groups.values())
        trained = sum(len(group["params"]) for group in groups.values())
        assert trained == len(student.trainable) + len(list(student.relation.parameters()))

    @pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
    def test_the_optimiser_is_the_one_asked_for(
        self, materials: Materials, configure: Configure, name: str, kind: type
    ) -> None:
        student = build_student(materials.base, configure())
        assert type(make_optimizer(student, OptimConfig(name=name))) is kind  # type: ignore[arg-type]


class TestDescend:
    def make(self) -> tuple[torch.nn.Parameter, torch.nn.Parameter, torch.optim.Optimizer]:
        one, two = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
        one.grad, two.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
        groups = [{"params": [one], "name": "one"}, {"params": [two], "name": "two"}]
        return one, two, torch.optim.SGD(groups, lr=1.0)

    def test_norms_are_told_before_clipping(self) -> None:
        one, two, optimizer = self.make()
        assert descend(optimizer, clip_norm=1.0) == pytest.approx({"one": 3.0, "two": 4.0})
        assert torch.allclose(one, torch.tensor([-0.6, 0.0]), atol=1e-5)
        assert torch.allclose(two, torch.tensor([-0.8]), atol=1e-5)

    def test_without_clipping_the_whole_step_is_taken(self) -> None:
        one, two, optimizer = self.make()
        descend(optimizer, clip_norm=None)
        assert (one.tolist(), two.tolist()) == ([-3.0, 0.0], [-4.0])

    def test_idle_parameters_are_left_out(self) -> None:
        _, two, optimizer = self.make()
        two.grad = None
        assert descend(optimizer, clip_norm=None) == {"one": 3.0, "two": 0.0}

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_norm_that_is_not_finite_moves_nothing(self, value: float) -> None:
        one, two, optimizer = self.make()
        assert two.grad is not None
        two.grad.fill_(value)
        with pytest.raises(Diverged, match="the gradient's norm is"):
            descend(optimizer, clip_norm=1.0)
        assert (one.tolist(), two.tolist()) == ([0.0, 0.0], [0.0])
