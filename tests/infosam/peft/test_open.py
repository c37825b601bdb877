"""Kinds that add nothing and open parts of SAM's own encoder: bitfit, norm, full."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from infosam.peft.config import BitFitConfig, FullConfig, NormConfig
from infosam.peft.inject import count_trainable, inject
from infosam.sam.architectures import architecture
from infosam.sam.weights import BaseSam


def opened(base: BaseSam, config: Any) -> list[str]:
    """What trains in the encoder, without its prefix."""
    prefix = "image_encoder."
    names = inject(copy.deepcopy(base.sam), config, seed=0)
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def test_full_is_the_whole_encoder(tiny_base: BaseSam) -> None:
    assert opened(tiny_base, FullConfig()) == [name for name, _ in tiny_base.sam.image_encoder.named_parameters()]


def test_bitfit_is_every_bias_of_the_encoder(tiny_base: BaseSam) -> None:
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.lin1", "mlp.lin2")
    biases = [f"blocks.{index}.{part}.bias" for index in range(6) for part in parts]
    assert set(opened(tiny_base, BitFitConfig())) == {"patch_embed.proj.bias", *biases, "neck.1.bias", "neck.3.bias"}


def test_norm_is_every_norm_of_the_encoder(tiny_base: BaseSam) -> None:
    norms = [f"blocks.{index}.{norm}" for index in range(6) for norm in ("norm1", "norm2")] + ["neck.1", "neck.3"]
    expected = {f"{norm}.{part}" for norm in norms for part in ("weight", "bias")}
    assert set(opened(tiny_base, NormConfig())) == expected


@pytest.mark.parametrize("kind", [BitFitConfig, NormConfig, FullConfig])
def test_with_frozen_blocks_all_before_them_is_frozen_too(tiny_base: BaseSam, kind: Any) -> None:
    """So that what the frozen part gives can be remembered per image."""
    names = opened(tiny_base, kind(first_block=4))
    assert {name.split(".")[1] for name in names if name.startswith("blocks.")} == {"4", "5"}
    assert {name.split(".")[0] for name in names} == {"blocks", "neck"}


def test_counts_in_vit_b() -> None:
    """89.67 M parameters in the encoder of vit_b; 2 * 12 LayerNorms over 768 channels and 2 over 256 in the neck."""
    spec = architecture("vit_b")
    assert count_trainable(spec, FullConfig())["encoder"] == 89_670_912
    assert count_trainable(spec, NormConfig())["encoder"] == 2 * (2 * 12 * 768 + 2 * 256)
    per_block = 2 * 768 + 3 * 768 + 768 + 4 * 768 + 768
    assert count_trainable(spec, BitFitConfig())["encoder"] == 768 + 12 * per_block + 2 * 256
