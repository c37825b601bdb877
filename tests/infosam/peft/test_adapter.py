"""The series adapter: its formula and where it sits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from infosam.config import AdapterConfig
from infosam.peft.adapter import SeriesAdapter
from infosam.peft.inject import count_trainable, inject
from infosam.sam.architectures import architecture
from infosam.sam.weights import BaseSam


@pytest.fixture
def adapter() -> SeriesAdapter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SeriesAdapter(8, 3, zero_init=False)


def test_it_is_a_bottleneck_with_a_skip(adapter: SeriesAdapter) -> None:
    x = torch.randn(2, 5, 5, 8, generator=torch.Generator().manual_seed(1))
    inner = x @ adapter.down.weight.T + adapter.down.bias
    inner = 0.5 * inner * (1 + torch.erf(inner / 2**0.5))
    torch.testing.assert_close(adapter(x), x + inner @ adapter.up.weight.T + adapter.up.bias)


def test_zero_init_is_the_identity() -> None:
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(SeriesAdapter(8, 3, zero_init=True)(x), x)


def test_it_follows_attention_and_mlp(tiny_base: BaseSam) -> None:
    sam = copy.deepcopy(tiny_base.sam)
    inject(sam, AdapterConfig(width=4, first_block=5, zero_init=False), seed=0)
    block, plain = sam.image_encoder.blocks[5], tiny_base.sam.image_encoder.blocks[5]
    x: Tensor = torch.randn(1, 8, 8, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        after_attention = x + block.attn.adapter(plain.attn(plain.norm1(x)))
        expected = after_attention + block.mlp.adapter(plain.mlp(plain.norm2(after_attention)))
        torch.testing.assert_close(block(x), expected)


def test_the_official_run_has_the_published_count() -> None:
    """5.917 M parameters in blocks 2 to 11 of vit_b at a quarter of its width, and 0.031 M of their norms (research of
    the released code)."""
    counts = [
        count_trainable(architecture("vit_b"), AdapterConfig(ratio=0.25, first_block=2, train_norms=norms))["encoder"]
        for norms in (False, True)
    ]
    assert counts[0] == pytest.approx(5.917e6, rel=1e-3)
    assert counts[1] - counts[0] == pytest.approx(0.031e6, rel=0.02)


def test_norms_train_only_where_adapted_and_asked(tiny_base: BaseSam) -> None:
    def norms(config: AdapterConfig) -> list[str]:
        names = inject(copy.deepcopy(tiny_base.sam), config, seed=0)
        return [name for name in names if name.startswith("image_encoder.") and ".norm" in name]

    assert norms(AdapterConfig(width=4, train_norms=False)) == []
    assert norms(AdapterConfig(width=4, first_block=5)) == [
        f"image_encoder.blocks.5.{norm}.{part}" for norm in ("norm1", "norm2") for part in ("weight", "bias")
    ]


def test_sam_keeps_its_own_parameter_names(tiny_base: BaseSam) -> None:
    sam = copy.deepcopy(tiny_base.sam)
    inject(sam, AdapterConfig(width=4), seed=0)
    assert tiny_base.sam.state_dict().keys() <= sam.state_dict().keys()
    assert isinstance(sam.image_encoder.blocks[0].attn.adapter, nn.Module)
