"""What runs share: loaded once, scored before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from infosam.config import ModelConfig, RunConfig
from infosam.data.dataset import collate
from infosam.errors import ConfigError
from infosam.materials import Materials, load_materials
from infosam.sam.architectures import ARCHITECTURES, build_sam
from infosam.sam.weights import save_state

Configure = Callable[..., RunConfig]


class TestMaterials:
    def test_what_is_there_before_training(self, materials: Materials) -> None:
        keys = {f"val/{prompt}/{name}" for prompt in ("box", "none") for name in ("dice", "iou")}
        assert materials.zero_shot.keys() == materials.trivial.keys() == keys
        for scores in (materials.zero_shot, materials.trivial):
            assert all(0 <= value <= 1 for value in scores.values())
        assert materials.trivial["val/box/dice"] > materials.trivial["val/none/dice"]
        assert len(materials.data_digest) == len(materials.base_sha256) == 64

    def test_baselines_can_be_left_out(self, tiny_model: ModelConfig, spores: Path) -> None:
        fresh = load_materials(tiny_model, spores, device="cpu", baselines=False)
        assert (fresh.zero_shot, fresh.trivial) == ({}, {})

    def test_those_of_other_data_share_the_frozen_models(
        self, materials: Materials, tiny_model: ModelConfig, spores: Path
    ) -> None:
        """But none of what is a function of the images."""
        other = load_materials(tiny_model, spores, device="cpu", baselines=False, like=materials)
        assert other.base is materials.base
        assert other.teacher is materials.teacher
        assert other.train_set is not materials.train_set
        assert other.base_encodings is not materials.base_encodings


class TestTeacher:
    def test_without_one_the_base_teaches(self, materials: Materials) -> None:
        assert materials.teacher is materials.base

    def test_another_one_teaches(self, spores: Path, tmp_path: Path) -> None:
        """The same architecture with other weights stands in for a larger one: vit_nano has no larger sibling."""
        other = tmp_path / "other.safetensors"
        save_state(build_sam(ARCHITECTURES["vit_nano"]).state_dict(), other)
        model = ModelConfig.model_validate({"image_px": 64, "teacher": {"name": "vit_nano", "checkpoint": other}})
        made = load_materials(model, spores, device="cpu", baselines=False)
        assert made.teacher.sha256 != made.base.sha256
        batch = collate([made.train_set[0]])
        with torch.no_grad():
            expected = made.teacher.sam.image_encoder(batch.image)
        assert torch.equal(made.teacher_encodings.of(batch, block=None, dtype="float32"), expected)

    def test_one_of_another_shape_is_refused(self, spores: Path) -> None:
        model = ModelConfig.model_validate({"image_px": 64, "teacher": {"name": "vit_b"}})
        with pytest.raises(
            ConfigError, match=r"model\.teacher: vit_b has 4 tokens along a side, the student vit_nano has 8"
        ):
            load_materials(model, spores, device="cpu", baselines=False)
