"""What the recipe offers beyond the default: parts of a batch, several masks, other terms, transferred relations."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import infosam.training
from infosam.bundle import export_bundle
from infosam.config import ModelConfig, RunConfig
from infosam.data.store import import_dataset
from infosam.errors import ConfigError
from infosam.training import EpochReport, Materials, load_materials, train

Configure = Callable[..., RunConfig]


def numbers(report: EpochReport) -> dict[str, float]:
    """All values but the time it took."""
    return {name: value for name, value in report.values.items() if name != "cost/seconds"}


@pytest.fixture(scope="module")
def plain(materials: Materials, configure: Configure) -> EpochReport:
    """One epoch of the default recipe."""
    (report,) = train(configure(train={"epochs": 1}), materials)
    return report


def moments(report: EpochReport) -> dict[str, Tensor]:
    """Adam's first moments; after one step without clipping, a tenth of the gradients."""
    assert report.checkpoint is not None
    found = load_file(report.checkpoint / "optimizer.safetensors")
    return {name: tensor for name, tensor in found.items() if name.endswith("exp_avg")}


def assert_same_moments(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal to what rounding leaves: a softmax does not see what is added to all its keys, so some gradients are 0."""
    assert found.keys() == expected.keys()
    largest = max(tensor.abs().max().item() for tensor in expected.values())
    for name, tensor in expected.items():
        scale = max(tensor.abs().max().item(), 1e-3 * largest)
        assert torch.allclose(found[name] / scale, tensor / scale, atol=1e-3), name


class TestCheckpointing:
    @pytest.mark.parametrize(
        "peft",
        [
            pytest.param({"kind": "lora", "rank": 2}, id="lora"),
            pytest.param({"kind": "conv_lora", "rank": 2, "balance": 0.1}, id="conv_lora"),
        ],
    )
    def test_recomputed_blocks_give_the_same_gradients(
        self, materials: Materials, configure: Configure, tmp_path: Path, peft: dict[str, Any]
    ) -> None:
        reports = []
        for recompute in (False, True):
            config = configure(
                train={"epochs": 1, "batch_size": 4, "checkpointing": recompute},
                optim={"clip_norm": None, "warmup_fraction": 0.0},
                peft=peft,
            )
            reports += list(train(config, materials, checkpoint_dir=tmp_path / str(recompute)))
        kept, recomputed = reports
        assert numbers(recomputed) == pytest.approx(numbers(kept), rel=1e-5, abs=1e-7)
        assert_same_moments(moments(recomputed), moments(kept))


class TestAccumulation:
    PLAIN: ClassVar[dict[str, Any]] = {
        "info": {"compression": 0, "distillation": 0},
        "optim": {"clip_norm": None, "warmup_fraction": 0.0},
    }

    @pytest.mark.parametrize(
        "info",
        [
            pytest.param({"compression": 0, "distillation": 0, "features": 0.5}, id="without-information-terms"),
            pytest.param({"compression": 2.0, "distillation": 3.0, "features": 0.5}, id="with-all-terms"),
            pytest.param({"compression": 0, "distillation": 3.0}, id="with-distillation"),
        ],
    )
    def test_parts_add_up_to_the_batch(
        self, materials: Materials, configure: Configure, tmp_path: Path, info: dict[str, float]
    ) -> None:
        """The Gram matrices of a batch in parts are those of the whole batch."""
        reports = []
        for parts in (1, 3):
            config = configure(
                train={"epochs": 1, "batch_size": 6, "accumulate": parts}, **{**self.PLAIN, "info": info}
            )
            reports += list(train(config, materials, checkpoint_dir=tmp_path / str(parts)))
        whole, divided = reports
        assert divided.values.keys() == whole.values.keys()
        for name in whole.values:
            if name.startswith(("loss/", "info/")):
                assert divided.values[name] == pytest.approx(whole.values[name], rel=1e-4, abs=1e-6), name
        assert_same_moments(moments(divided), moments(whole))

    def test_parts_are_equal(self, configure: Configure) -> None:
        with pytest.raises(ConfigError, match=r"train\.accumulate must divide train\.batch_size = 4, got 3"):
            configure(train={"batch_size": 4, "accumulate": 3}, **self.PLAIN)


@pytest.fixture(scope="module")
def pairs(spores_source: Path, tiny_model: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Materials:
    """Each image twice: with its own mask, and with its left half."""
    folder = tmp_path_factory.mktemp("pairs")
    shutil.copytree(spores_source, folder, dirs_exist_ok=True)
    for split in ("train", "val", "test"):
        lines = (folder / f"{split}.csv").read_text().splitlines()
        more = []
        for line in lines[1:]:
            image, label = line.split(",")
            other = label.replace(".png", "_half.png")
            half = np.zeros((64, 64), np.uint8)
            half[:, :32] = 255
            Image.fromarray(half).save(folder / other)
            more.append(f"{image},{other}")
        (folder / f"{split}.csv").write_text("\n".join([*lines, *more]) + "\n")
    out = folder / "imported"
    import_dataset(folder, domain="pairs", out=out)
    return load_materials(tiny_model, out, device="cpu", baselines=False)


class TestSeveralMasks:
    def test_rows_of_one_image_are_found(self, pairs: Materials) -> None:
        units = pairs.train_set.store.images("train")
        assert [len(unit) for unit in units] == [2] * 7
        for one, other in units:
            assert torch.equal(pairs.train_set[one].image, pairs.train_set[other].image)
            assert not torch.equal(pairs.train_set[one].mask, pairs.train_set[other].mask)

    def test_an_image_is_encoded_once_for_all_of_them(
        self, pairs: Materials, configure: Configure, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[tuple[int, int]] = []
        original = infosam.training.objective

        def watched(*arguments: Any, **settings: Any) -> Any:
            sizes.append((len(arguments[2].logits), len(arguments[4])))
            return original(*arguments, **settings)

        monkeypatch.setattr(infosam.training, "objective", watched)
        (report,) = train(configure(train={"epochs": 1, "batch_size": 3, "masks_per_image": 2}), pairs)
        assert sizes == [(6, 6)] * 2  # 7 images in batches of 3
        assert math.isfinite(report.values["loss/total"])

    def test_an_image_with_fewer_repeats_them(self, materials: Materials, configure: Configure) -> None:
        (report,) = train(configure(train={"epochs": 1, "batch_size": 2, "masks_per_image": 3}), materials)
        assert math.isfinite(report.values["loss/total"])


class TestOptions:
    @pytest.mark.parametrize(
        "groups",
        [
            {"augment": {"flip": 0.5, "rotation_deg": 20, "scale": 0.3, "colour": 0.3}},
            {"prompts": {"box": 0.0, "point": 0.0, "points": 1.0, "none": 0.0}},
            {"train": {"precision": "bf16"}},
            {"optim": {"name": "adam", "weight_decay": 0.1}},
            {"info": {"compression": 0, "distillation": 0, "features": 1.0}},
            {"model": {"protocol": "official"}},
        ],
        ids=lambda groups: next(iter(groups)),
    )
    def test_each_makes_another_run_that_repeats_itself(
        self, plain: EpochReport, materials: Materials, spores: Path, configure: Configure, groups: Any
    ) -> None:
        config = configure(**{**groups, "train": {"epochs": 1, **groups.get("train", {})}})
        made = materials
        if "model" in groups:
            made = load_materials(config.model, spores, device="cpu", baselines=False)
        (first,), (again,) = (list(train(config, made)) for _ in range(2))
        assert numbers(first) == numbers(again)
        assert math.isfinite(first.values["loss/total"])
        assert first.values["loss/structure"] != plain.values["loss/structure"]

    def test_materials_of_another_protocol_are_refused(self, materials: Materials, configure: Configure) -> None:
        with pytest.raises(ConfigError, match=r"model\.protocol: official is configured, but images are prepared as"):
            next(train(configure(model={"protocol": "official"}), materials))


class TestRelationTransfer:
    def bundle(self, materials: Materials, configure: Configure, folder: Path) -> Path:
        (report,) = train(configure(train={"epochs": 1, "seed": 4}), materials, checkpoint_dir=folder / "run")
        assert report.checkpoint is not None
        return export_bundle(report.checkpoint, materials, folder / "bundle", card={})

    def test_a_frozen_module_stays_that_of_the_bundle(
        self, materials: Materials, configure: Configure, tmp_path: Path
    ) -> None:
        source = self.bundle(materials, configure, tmp_path)
        taken = {name: t for name, t in load_file(source / "rest.safetensors").items() if name.startswith("relation.")}
        info = {"relation_from": str(source), "relation_frozen": True}
        for frozen in (True, False):
            config = configure(train={"epochs": 1}, info={**info, "relation_frozen": frozen})
            (report,) = train(config, materials, checkpoint_dir=tmp_path / str(frozen))
            assert report.checkpoint is not None
            after = load_file(report.checkpoint / "student.safetensors")
            assert all(torch.equal(after[name], taken[name]) for name in taken) == frozen
            assert ("grad/relation" in report.values) != frozen

    def test_a_folder_without_one_is_refused(self, materials: Materials, configure: Configure, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"info\.relation_from: no relation module for this model in"):
            next(train(configure(info={"relation_from": str(tmp_path)}), materials))

    def test_a_fresh_module_cannot_be_frozen(self, configure: Configure) -> None:
        with pytest.raises(ConfigError, match="relation_frozen needs relation_from"):
            configure(info={"relation_frozen": True})
