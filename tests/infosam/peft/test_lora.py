"""LoRA: its formula, and that the peft library itself understands our files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything.modeling import Sam

from infosam.config import LoraConfig
from infosam.peft import library
from infosam.peft.inject import inject
from infosam.sam.weights import BaseSam


@pytest.fixture
def adapted(tiny_base: BaseSam) -> Sam:
    """LoRA of rank 3 and scale 2 in blocks 2 to 5, away from its start."""
    sam = copy.deepcopy(tiny_base.sam)
    names = inject(sam, LoraConfig(rank=3, alpha=6, first_block=2), seed=0)
    with torch.no_grad():
        for number, name in enumerate(names):
            if "lora_" in name:
                parameter = sam.get_parameter(name)
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    return sam.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(9))


@torch.no_grad()
def test_it_adds_the_scaled_product_to_the_fused_projection(adapted: Sam, tiny_base: BaseSam, images: torch.Tensor
                                                            ) -> None:  # fmt: skip
    merged = copy.deepcopy(tiny_base.sam.image_encoder)
    for index in range(2, 6):
        layer = adapted.image_encoder.blocks[index].attn.qkv
        update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        merged.blocks[index].attn.qkv.weight += 6 / 3 * update
    torch.testing.assert_close(adapted.image_encoder(images), merged(images), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(merged(images), tiny_base.sam.image_encoder(images), atol=1e-2)


def test_without_alpha_the_scale_is_1(tiny_base: BaseSam) -> None:
    sam = copy.deepcopy(tiny_base.sam)
    inject(sam, LoraConfig(rank=5), seed=0)
    assert sam.image_encoder.blocks[0].attn.qkv.scaling == {"default": 1.0}


def test_it_has_rank_times_both_widths_per_block(tiny_base: BaseSam) -> None:
    sam = copy.deepcopy(tiny_base.sam)
    names = inject(sam, LoraConfig(rank=4, first_block=1), seed=0)
    count = sum(sam.get_parameter(name).numel() for name in names if "lora_" in name)
    assert count == 5 * 4 * (128 + 3 * 128)


@torch.no_grad()
def test_the_peft_library_loads_our_files(adapted: Sam, tiny_base: BaseSam, images: torch.Tensor, tmp_path: Path
                                          ) -> None:  # fmt: skip
    library.save(adapted, tmp_path / "peft")
    assert sorted(path.name for path in (tmp_path / "peft").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(tiny_base.sam.image_encoder), str(tmp_path / "peft"))
    assert torch.equal(loaded.eval()(images), adapted.image_encoder(images))
    settings = json.loads((tmp_path / "peft" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (settings["r"], settings["lora_alpha"], settings["inference_mode"]) == (3, 6, True)


@torch.no_grad()
def test_save_and_load(adapted: Sam, tiny_base: BaseSam, images: torch.Tensor, tmp_path: Path) -> None:
    library.save(adapted, tmp_path)
    other = copy.deepcopy(tiny_base.sam)
    inject(other, LoraConfig(rank=3, alpha=6, first_block=2), seed=5)
    library.load(other, tmp_path)
    assert torch.equal(other.image_encoder(images), adapted.image_encoder(images))


def test_saving_twice_gives_the_same_bytes(adapted: Sam, tmp_path: Path) -> None:
    for name in ("one", "two"):
        library.save(copy.deepcopy(adapted), tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_files_that_do_not_fit_are_refused(adapted: Sam, tmp_path: Path, change: str) -> None:
    library.save(adapted, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        tensors[name.replace("blocks.2", "blocks.0")] = tensors[name].clone()
    else:
        tensors[name] = torch.zeros(1, 1)
    save_file(tensors, file)
    with pytest.raises((ValueError, RuntimeError), match=r"missing|unexpected|size mismatch"):
        library.load(adapted, tmp_path)
