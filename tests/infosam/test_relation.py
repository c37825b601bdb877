"""The relation module against the released formula, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from infosam.relation import RelationModule


@pytest.fixture
def module() -> RelationModule:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = RelationModule(16)
    with torch.no_grad():  # away from the initial 1 and 0, so that the norms are seen to do something
        for number, norm in enumerate((module.norm_features, module.norm_token)):
            generator = torch.Generator().manual_seed(number)
            norm.weight.copy_(torch.rand(16, generator=generator) + 0.5)
            norm.bias.copy_(torch.randn(16, generator=generator) * 0.1)
    return module


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    """Features (3, 10, 16) and token (3, 1, 16)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 10, 16, generator=generator) * 3 + 1, torch.randn(3, 1, 16, generator=generator)


def test_the_released_one_has_132608_parameters() -> None:
    assert sum(parameter.numel() for parameter in RelationModule().parameters()) == 132_608
    assert sum(parameter.numel() for parameter in RelationModule(256).parameters()) == 132_608


def test_rows_have_length_1(module: RelationModule, inputs: tuple[Tensor, Tensor]) -> None:
    relation = module(*inputs)
    assert relation.shape == (3, 10)
    torch.testing.assert_close(relation.norm(dim=1), torch.ones(3))


def test_it_is_attention_plus_the_dot_product_of_normed_features(
    module: RelationModule, inputs: tuple[Tensor, Tensor]
) -> None:
    features, token = inputs
    state = {name: tensor.double() for name, tensor in module.state_dict().items()}

    def normed(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]

    for image in range(len(features)):
        key_in = normed(features[image].double(), "norm_features")
        query_in = normed(token[image, 0].double(), "norm_token")
        query = state["query.weight"] @ query_in + state["query.bias"]
        scores = []
        for position in key_in:
            key = state["key.weight"] @ position + state["key.bias"]
            scores.append(query @ key / 16**0.5 + query_in @ position)
        expected = torch.stack(scores)
        torch.testing.assert_close(module(features, token)[image].double(), expected / expected.norm(), rtol=1e-5,
                                   atol=1e-6)  # fmt: skip


def test_images_do_not_see_each_other(module: RelationModule, inputs: tuple[Tensor, Tensor]) -> None:
    features, token = inputs
    torch.testing.assert_close(module(features, token)[1:2], module(features[1:2], token[1:2]))


def test_every_parameter_learns(module: RelationModule, inputs: tuple[Tensor, Tensor]) -> None:
    relation = module(*inputs)
    (relation * torch.randn(relation.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
