"""Conv-LoRA: its formula against one written by hand, its gate, and its balance."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from infosam.config import RunConfig, load_run_config
from infosam.data.prompts import Prompts
from infosam.errors import ConfigError
from infosam.objective import objective
from infosam.peft.config import ConvLoraConfig, LoraConfig
from infosam.peft.conv_lora import ConvLora, Expert, auxiliary_losses, load_balance
from infosam.peft.inject import count_trainable, inject
from infosam.sam.architectures import architecture
from infosam.sam.forward import forward
from infosam.sam.weights import BaseSam
from infosam.student import build_student


@pytest.fixture
def update() -> ConvLora:
    """From 6 to 9 channels at scale 2, away from its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = ConvLora(6, 9, ConvLoraConfig(rank=3, alpha=6, experts=4))
        torch.nn.init.normal_(layer.up.weight)
        corners = [[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]  # of a tetrahedron, so that each is chosen
        layer.gate.weight.data = 3 * torch.tensor(corners)
        for expert in layer.experts:
            torch.nn.init.normal_(expert.convolution.bias)
    return layer


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(64, 5, 5, 6, generator=torch.Generator().manual_seed(1))


def by_hand(layer: ConvLora, x: Tensor) -> tuple[Tensor, int]:
    """The update of one map (h, w, inputs), and the number of the expert it went through."""
    low = (x @ layer.down.weight.T).permute(2, 0, 1)
    scores = layer.gate.weight @ low.flatten(1).mean(dim=1)
    probabilities = torch.exp(scores) / torch.exp(scores).sum()
    chosen = int(probabilities.argmax())
    convolution, size = layer.experts[chosen].convolution, low.shape[1:]
    large = low[None]
    if chosen > 0:
        large = F.interpolate(large, size=[(chosen + 1) * side for side in size], mode="bicubic")
    large = F.gelu(F.conv2d(large, convolution.weight, convolution.bias, padding=1))
    if chosen > 0:
        large = F.interpolate(large, size=size, mode="bicubic")
    mixed = low + probabilities[chosen] * large[0]
    return 6 / 3 * mixed.permute(1, 2, 0) @ layer.up.weight.T, chosen


@torch.no_grad()
def test_each_map_goes_through_one_expert(update: ConvLora, maps: Tensor) -> None:
    expected, chosen = zip(*(by_hand(update, one) for one in maps), strict=True)
    assert set(chosen) == {0, 1, 2, 3}
    torch.testing.assert_close(update(maps), torch.stack(expected))


@torch.no_grad()
def test_a_map_does_not_depend_on_the_others(update: ConvLora, maps: Tensor) -> None:
    torch.testing.assert_close(update(maps)[3:4], update(maps[3:4]))


@torch.no_grad()
def test_training_adds_no_noise(update: ConvLora, maps: Tensor) -> None:
    state = torch.get_rng_state()
    assert torch.equal(update.train()(maps), update.eval()(maps))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_an_expert_keeps_the_size(factor: int) -> None:
    assert Expert(2, factor)(torch.ones(3, 2, 5, 7)).shape == (3, 2, 5, 7)
    assert Expert(2, factor)(torch.ones(0, 2, 5, 7)).shape == (0, 2, 5, 7)


def test_an_expert_nobody_chose_gets_a_gradient_of_zero(update: ConvLora, maps: Tensor) -> None:
    """Not none at all: data-parallel training needs the same gradients on all processes."""
    torch.nn.init.zeros_(update.gate.weight)  # the first expert wins every tie
    update(maps).sum().backward()
    assert update.experts[0].convolution.weight.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in update.parameters())
    assert all(expert.convolution.weight.grad.abs().sum() == 0 for expert in list(update.experts)[1:])


class TestBalance:
    def test_it_is_1_for_an_even_load(self) -> None:
        sharp = 100 * torch.eye(4).repeat(3, 1)
        assert load_balance(sharp.softmax(dim=1)).item() == pytest.approx(1.0)

    def test_it_is_the_number_of_experts_if_one_takes_all(self) -> None:
        assert load_balance((100 * torch.eye(4)[[2] * 5]).softmax(dim=1)).item() == pytest.approx(4.0)

    def test_against_a_sum_by_hand(self) -> None:
        probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.4, 0.25, 0.35]])
        shares, means = (3 / 4, 0.0, 1 / 4), (1.6 / 4, 1.05 / 4, 1.35 / 4)
        expected = 3 * sum(share * mean for share, mean in zip(shares, means, strict=True))
        assert load_balance(probabilities).item() == pytest.approx(expected)

    def test_descending_it_spreads_the_load(self) -> None:
        scores = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.1, 0.0], [2.0, 0.0, 0.1]], requires_grad=True)
        load_balance(scores.softmax(dim=1)).backward()
        assert scores.grad is not None
        assert (scores.grad[:, 0] > 0).all()
        assert (scores.grad[:, 1:] < 0).all()


class TestAuxiliaryLosses:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = Prompts(points=torch.tensor([[[4.0, 6.0], [40.0, 50.0]]] * 2), labels=torch.tensor([[2, 3]] * 2))

    def test_the_weighted_mean_over_blocks(self, tiny_base: BaseSam) -> None:
        sam = copy.deepcopy(tiny_base.sam).train()
        inject(sam, ConvLoraConfig(rank=2, experts=3, balance=0.5, first_block=4), seed=0)
        forward(sam, self.images, self.prompts)
        layers = [sam.image_encoder.blocks[index].attn.qkv.conv_lora for index in (4, 5)]
        expected = 0.5 * sum(load_balance(layer.probabilities).item() for layer in layers) / 2
        found = auxiliary_losses(sam)
        assert list(found) == ["balance"]
        assert found["balance"].item() == pytest.approx(expected)
        found["balance"].backward()
        assert all(layer.gate.weight.grad.abs().sum() > 0 for layer in layers)

    def test_it_belongs_to_one_forward_in_training(self, tiny_base: BaseSam) -> None:
        sam = copy.deepcopy(tiny_base.sam).train()
        inject(sam, ConvLoraConfig(rank=2, experts=3), seed=0)
        assert auxiliary_losses(sam) == {}
        forward(sam, self.images, self.prompts)
        assert copy.deepcopy(sam).image_encoder.blocks[0].attn.qkv.conv_lora.probabilities is None
        assert auxiliary_losses(sam) != {}
        assert auxiliary_losses(sam) == {}
        forward(sam.eval(), self.images, self.prompts)
        assert auxiliary_losses(sam) == {}

    def test_the_objective_contains_it(self, tiny_base: BaseSam) -> None:
        plain = {"compression": 0.0, "distillation": 0.0}
        peft = {"kind": "conv_lora", "rank": 2, "experts": 3, "balance": 0.5}
        config = RunConfig.model_validate({"model": {"image_px": 64}, "peft": peft, "info": plain})
        student = build_student(tiny_base, config)
        output = forward(student.sam.train(), self.images, self.prompts)
        mask = torch.zeros(2, 64, 64, dtype=torch.bool)
        result = objective(config, student, output, None, mask)
        assert result.terms.keys() == {"structure", "balance"}
        assert result.terms["balance"].item() >= 0.5
        assert result.total.item() == pytest.approx(sum(term.item() for term in result.terms.values()))

    def test_other_kinds_have_none(self, tiny_base: BaseSam) -> None:
        sam = copy.deepcopy(tiny_base.sam).train()
        inject(sam, LoraConfig(rank=2), seed=0)
        forward(sam, self.images, self.prompts)
        assert auxiliary_losses(sam) == {}


class TestAccumulation:
    plain = ("peft.kind=conv_lora", "train.accumulate=2", "info.compression=0", "info.distillation=0")

    def test_balancing_parts_of_a_batch_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"train\.accumulate must be 1 while peft\.balance is > 0, got 2"):
            load_run_config(None, self.plain)

    def test_without_a_balance_a_batch_may_be_divided(self) -> None:
        assert load_run_config(None, [*self.plain, "peft.balance=0"]).train.accumulate == 2


def test_the_published_count_without_the_noise() -> None:
    """0.1624 M in vit_b at rank 4 with 8 experts (research of the released code), of which 12 x 4 x 8 draw noise."""
    count = count_trainable(architecture("vit_b"), ConvLoraConfig(rank=4, experts=8))["encoder"]
    assert count == 162_432 - 12 * 4 * 8
