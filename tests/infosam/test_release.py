"""Release: a finished run becomes weights with a card, an unfinished one or a taken name is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from infosam.errors import UserError
from infosam.pretrain import PretrainConfig
from infosam.release import release
from infosam.sam.architectures import architecture, build_sam
from infosam.sam.weights import load_state, save_state, sha256_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run on a small canvas, as `pretrain` leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = PretrainConfig(small_steps=3, full_steps=0)
    save_state(build_sam(architecture("vit_nano", 64)).state_dict(), folder / "weights.safetensors")
    state = {"step": 3, "image_px": 64, "config": config.model_dump(mode="json"), "box_iou": 0.5, "point_iou": 0.25}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_weights_fit_the_architecture_and_the_card_names_them(run: Path, tmp_path: Path) -> None:
    target = release(run, tmp_path, "vit_nano-7", figures={"set": 0.4})
    sam = build_sam(architecture("vit_nano"))
    sam.load_state_dict(load_state(target))
    card = json.loads((tmp_path / "vit_nano-7.json").read_text())
    assert card["sha256"] == sha256_of(target)
    assert card["figures"] == {"unseen_scenes": {"box_iou": 0.5, "point_iou": 0.25}, "set": 0.4}
    assert card["images"] == 3 * PretrainConfig().images_per_step
    assert card["parameters"] == sum(parameter.numel() for parameter in sam.parameters())
    assert target.stat().st_size < 12e6


def test_released_weights_never_change(run: Path, tmp_path: Path) -> None:
    target = release(run, tmp_path, "vit_nano-7", figures={})
    before = target.read_bytes()
    with pytest.raises(UserError, match="never change"):
        release(run, tmp_path, "vit_nano-7", figures={})
    assert target.read_bytes() == before


def test_an_unfinished_run_is_not_released(run: Path, tmp_path: Path) -> None:
    state = json.loads((run / "state.json").read_text())
    (run / "state.json").write_text(json.dumps({**state, "step": 2}))
    with pytest.raises(UserError, match="stopped at step 2"):
        release(run, tmp_path, "vit_nano-7", figures={})
    assert not (tmp_path / "vit_nano-7.safetensors").exists()


def test_half_precision_rounds_only(run: Path, tmp_path: Path) -> None:
    torch.testing.assert_close(
        load_state(release(run, tmp_path, "vit_nano-7", figures={}))["mask_decoder.iou_token.weight"],
        load_state(run / "weights.safetensors")["mask_decoder.iou_token.weight"],
        rtol=1e-3,
        atol=1e-3,
    )
