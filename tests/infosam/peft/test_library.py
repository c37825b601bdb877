"""Kinds of the peft library: it understands our files, and each scales as its paper says."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from segment_anything.modeling import Sam
from torch import Tensor

from infosam.config import load_run_config
from infosam.errors import ConfigError
from infosam.peft import library
from infosam.peft.config import DoraConfig, Ia3Config, LohaConfig, LoraConfig, RsLoraConfig
from infosam.peft.inject import METHODS, count_trainable, inject
from infosam.sam.architectures import architecture
from infosam.sam.weights import BaseSam

ALL_TARGETS = ("qkv", "proj", "mlp")
KINDS: list[Any] = [
    LoraConfig(rank=2, targets=ALL_TARGETS, first_block=4),
    DoraConfig(rank=2, targets=ALL_TARGETS, first_block=4),
    RsLoraConfig(rank=3, alpha=4, first_block=4),
    LohaConfig(rank=2, alpha=3, targets=ALL_TARGETS, first_block=4),
    Ia3Config(targets=ALL_TARGETS, first_block=4),
]


def adapted(base: BaseSam, config: Any) -> Sam:
    """Away from its start."""
    sam = copy.deepcopy(base.sam)
    names = inject(sam, config, seed=0)
    with torch.no_grad():
        for number, name in enumerate(names):
            parameter = sam.get_parameter(name)
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(noise * 0.1 * library.owns(name))
    return sam.eval()


def layer_of(sam: Sam, path: str = "attn.qkv") -> Any:
    return sam.image_encoder.blocks[4].get_submodule(path)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(9))


def test_every_kind_with_files_is_here() -> None:
    assert {config.kind for config in KINDS} == {kind for kind, method in METHODS.items() if method.files is not None}


@torch.no_grad()
@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
def test_the_peft_library_loads_our_files(tiny_base: BaseSam, images: Tensor, tmp_path: Path, config: Any) -> None:
    sam = adapted(tiny_base, config)
    library.save(sam, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    loaded: Any = peft.PeftModel.from_pretrained(copy.deepcopy(tiny_base.sam.image_encoder), str(tmp_path))
    assert torch.equal(loaded.eval()(images), sam.image_encoder(images))
    assert not torch.equal(sam.image_encoder(images), tiny_base.sam.image_encoder(images))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == sum(library.owns(name) for name, _ in sam.named_parameters())


@torch.no_grad()
def test_a_rank_stabilised_update_is_scaled_by_the_root_of_the_rank(tiny_base: BaseSam) -> None:
    layer = layer_of(adapted(tiny_base, KINDS[2]))
    x = torch.randn(2, 128, generator=torch.Generator().manual_seed(1))
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(layer(x), layer.base_layer(x) + 4 / math.sqrt(3) * x @ update.T)


def test_its_default_is_that_of_lora_at_rank_4(tiny_base: BaseSam) -> None:
    for config in (LoraConfig(), RsLoraConfig()):
        sam = copy.deepcopy(tiny_base.sam)
        inject(sam, config, seed=0)
        assert layer_of(sam).scaling == {"default": 1.0}


@torch.no_grad()
def test_dora_trains_the_length_of_each_row(tiny_base: BaseSam) -> None:
    layer = layer_of(adapted(tiny_base, KINDS[1]))
    x = torch.randn(2, 128, generator=torch.Generator().manual_seed(1))
    direction = layer.base_layer.weight + layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    length = layer.lora_magnitude_vector["default"].weight
    weight = length[:, None] * direction / direction.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer(x), x @ weight.T + layer.base_layer.bias, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_loha_multiplies_two_low_rank_updates(tiny_base: BaseSam) -> None:
    layer = layer_of(adapted(tiny_base, KINDS[3]))
    x = torch.randn(2, 128, generator=torch.Generator().manual_seed(1))
    one, two = (getattr(layer, f"hada_w{n}_a")["default"] @ getattr(layer, f"hada_w{n}_b")["default"] for n in (1, 2))
    torch.testing.assert_close(layer(x), layer.base_layer(x) + 3 / 2 * x @ (one * two).T)


@torch.no_grad()
def test_ia3_scales_outputs_of_attention_and_hidden_channels(tiny_base: BaseSam) -> None:
    sam = adapted(tiny_base, KINDS[4])
    qkv, last = layer_of(sam), layer_of(sam, "mlp.lin2")
    x = torch.randn(2, 128, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(qkv(x), qkv.base_layer(x) * qkv.ia3_l["default"].flatten())
    hidden = torch.randn(2, 512, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(last(hidden), last.base_layer(hidden * last.ia3_l["default"].flatten()))
    assert not hasattr(layer_of(sam, "mlp.lin1"), "ia3_l")


@pytest.mark.parametrize(
    ("config", "per_block"),
    [
        (LoraConfig(rank=4), 4 * (768 + 3 * 768)),
        (LoraConfig(rank=4, targets=("proj",)), 4 * (768 + 768)),
        (LoraConfig(rank=4, targets=("mlp",)), 2 * 4 * (768 + 4 * 768)),
        (DoraConfig(rank=4), 4 * (768 + 3 * 768) + 3 * 768),
        (RsLoraConfig(rank=4), 4 * (768 + 3 * 768)),
        (LohaConfig(rank=4), 2 * 4 * (768 + 3 * 768)),
        (Ia3Config(), 3 * 768 + 4 * 768),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else str(value),
)
def test_counts_in_vit_b(config: Any, per_block: int) -> None:
    assert count_trainable(architecture("vit_b"), config)["encoder"] == 12 * per_block


class TestTargets:
    def test_each_adapts_its_modules_and_no_other(self, tiny_base: BaseSam) -> None:
        found = {}
        for target in ALL_TARGETS:
            sam = copy.deepcopy(tiny_base.sam)
            names = inject(sam, LoraConfig.model_validate({"targets": [target], "first_block": 5}), seed=0)
            found[target] = {name.split(".lora_")[0] for name in names if ".lora_" in name}
        block = "image_encoder.blocks.5."
        assert found == {
            "qkv": {f"{block}attn.qkv"}, "proj": {f"{block}attn.proj"}, "mlp": {f"{block}mlp.lin1", f"{block}mlp.lin2"},
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("peft.targets=[]", "at least 1 item"),
            ("peft.targets=[qkv,qkv]", "peft.targets: each target may stand only once, got qkv, qkv"),
            ("peft.targets=[q]", "'qkv', 'proj' or 'mlp'"),
            ("peft.targets=qkv", "valid tuple, got 'qkv'"),
        ],
    )
    def test_others_are_refused(self, override: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            load_run_config(None, [override])
        assert message in str(caught.value)
