"""Sizes of SAM."""

from __future__ import annotations

import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from infosam.errors import ConfigError
from infosam.sam.architectures import ARCHITECTURES, architecture, build_sam
from infosam.sam.attention import restore_attention


def shapes(sam: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in sam.state_dict().items()}


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_official_sizes_are_those_of_the_package(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = build_sam(architecture(name)), sam_model_registry[name]()
    assert shapes(ours) == shapes(theirs)
    assert ours.image_encoder.img_size == theirs.image_encoder.img_size
    assert [block.window_size for block in ours.image_encoder.blocks] == [
        block.window_size for block in theirs.image_encoder.blocks
    ]


def test_vit_nano_is_a_sam_of_the_same_classes() -> None:
    sam = build_sam(architecture("vit_nano"))
    assert type(sam) is Sam
    assert not sam.training
    restore_attention(sam)
    kinds = {type(module) for module in sam.modules()}
    assert {kind.__module__.partition(".")[0] for kind in kinds} <= {"segment_anything", "torch"}


def test_a_canvas_of_another_size() -> None:
    spec = architecture("vit_nano", 64)
    assert (spec.image_px, spec.grid) == (64, 8)
    assert build_sam(spec).image_encoder.img_size == 64
    assert ARCHITECTURES["vit_nano"].image_px == 192


def test_a_canvas_the_patch_does_not_divide_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.image_px must be a multiple of the patch size 8 of vit_nano, got 60"
    ):
        architecture("vit_nano", 60)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of vit_b, vit_l, vit_h, vit_nano, got 'vit_x'"):
        architecture("vit_x")


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    build_sam(architecture("vit_nano", 64))
    assert torch.equal(torch.get_rng_state(), before)
