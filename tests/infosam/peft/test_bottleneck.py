"""The adapters made of a bottleneck: where they sit, what they add, how wide they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from segment_anything.modeling import Sam
from torch import Tensor

from infosam.config import AdapterConfig, RunConfig, load_run_config
from infosam.errors import ConfigError
from infosam.peft.bottleneck import Bottleneck
from infosam.peft.config import AdaptFormerConfig, ParallelConfig
from infosam.peft.inject import inject
from infosam.sam.weights import BaseSam


def adapted(base: BaseSam, config: ParallelConfig | AdaptFormerConfig) -> Sam:
    sam = copy.deepcopy(base.sam)
    inject(sam, config, seed=0)
    return sam


def by_hand(adapter: Bottleneck, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    inner = activation(x @ adapter.down.weight.T + adapter.down.bias)
    return inner @ adapter.up.weight.T + adapter.up.bias


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 8, 8, 128, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize(("name", "activation"), [("gelu", F.gelu), ("relu", F.relu)])
def test_adaptformer_works_beside_the_mlp_on_its_normed_input(
    tiny_base: BaseSam, x: Tensor, name: str, activation: Callable[[Tensor], Tensor]
) -> None:
    config = AdaptFormerConfig.model_validate({"width": 4, "scale": 0.3, "activation": name, "zero_init": False})
    block, plain = adapted(tiny_base, config).image_encoder.blocks[5], tiny_base.sam.image_encoder.blocks[5]
    middle = x + plain.attn(plain.norm1(x))
    normed = plain.norm2(middle)
    expected = middle + plain.mlp(normed) + 0.3 * by_hand(block.mlp.adapter, normed, activation)
    torch.testing.assert_close(block(x), expected)
    assert not hasattr(block.attn, "adapter")


@torch.no_grad()
@pytest.mark.parametrize("index", [1, 5])  # of a block with windows, and of a global one
def test_parallel_works_beside_attention_and_mlp(tiny_base: BaseSam, index: int) -> None:
    """On 10 x 10 tokens, so that windows of 8 are padded."""
    config = ParallelConfig(width=4, scale=0.3, zero_init=False)
    block, plain = adapted(tiny_base, config).image_encoder.blocks[index], tiny_base.sam.image_encoder.blocks[index]
    x = torch.randn(1, 10, 10, 128, generator=torch.Generator().manual_seed(2))
    middle = _middle(plain, x) + 0.3 * by_hand(block.attn.adapter, plain.norm1(x), F.gelu)
    normed = plain.norm2(middle)
    expected = middle + plain.mlp(normed) + 0.3 * by_hand(block.mlp.adapter, normed, F.gelu)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def _middle(block: Any, x: Tensor) -> Tensor:
    """What lies between the two halves of a block: the input of its second norm."""
    seen: list[Tensor] = []
    handle = block.norm2.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    block(x)
    handle.remove()
    return seen[0]


class TestWidth:
    def test_a_ratio_is_a_share_of_the_encoder(self, tiny_base: BaseSam) -> None:
        sam = copy.deepcopy(tiny_base.sam)
        inject(sam, AdapterConfig(ratio=0.25), seed=0)
        assert sam.image_encoder.blocks[0].mlp.adapter.down.weight.shape == (32, 128)

    @pytest.mark.parametrize(
        ("config", "width"),
        [
            (AdapterConfig(), 32),
            (AdapterConfig(width=8), 8),
            (AdapterConfig(ratio=0.25), 192),
            (AdapterConfig(ratio=1.0), 768),
            (AdapterConfig(ratio=0.3), 230),  # 230.4, rounded down
            (AdapterConfig(ratio=0.001), 1),
        ],
    )
    def test_channels_in_vit_b(self, config: AdapterConfig, width: int) -> None:
        assert config.channels(768) == width

    def test_both_at_once_are_refused(self) -> None:
        with pytest.raises(ConfigError) as caught:
            load_run_config(None, ["peft.kind=adapter", "peft.width=8", "peft.ratio=0.25"])
        assert (
            str(caught.value) == "configuration: peft: width and ratio exclude each other, got width 8 and ratio 0.25"
        )

    def test_a_dump_of_either_reads_back(self) -> None:
        for setting in ("peft.width=8", "peft.ratio=0.25"):
            config = load_run_config(None, ["peft.kind=adapter", setting])
            assert RunConfig.model_validate(config.model_dump(mode="json")) == config
