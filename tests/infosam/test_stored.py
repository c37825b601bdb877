"""What runs ask frozen encoders for, and what the processes of a machine share of it: never a wrong row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infosam.config import ModelConfig, RunConfig
from infosam.data.dataset import SegmentationDataset
from infosam.data.store import open_dataset
from infosam.materials import Materials, load_materials
from infosam.peft.inject import METHODS
from infosam.stored import Encoding, encodings_of
from infosam.student import build_student
from infosam.tensor_store import open_store
from infosam.training import train

Configure = Callable[..., RunConfig]
TEACHER = Encoding("base", None, "float16")


class TestWhatRunsAskFor:
    @pytest.mark.parametrize("kind", sorted(METHODS))
    def test_the_block_is_the_first_that_trains(self, kind: str, materials: Materials, configure: Configure) -> None:
        blocks = [] if kind == "decoder" else [0, 2]
        for first in blocks or [None]:
            settings = {"kind": kind} if first is None else {"kind": kind, "first_block": first}
            config = configure(peft=settings, info={"compression": 0, "distillation": 0})
            assert build_student(materials.base, config).frozen_until == first
            assert encodings_of(config) == ([] if first == 0 else [Encoding("base", first, "float16")])

    def test_the_teacher_counts_while_it_is_asked(self, configure: Configure) -> None:
        assert encodings_of(configure()) == [TEACHER]
        assert encodings_of(configure(peft={"kind": "decoder"})) == [TEACHER]  # both want the base's embeddings
        other = configure(model={"image_px": 64, "teacher": {"name": "vit_nano"}}, peft={"kind": "decoder"})
        assert encodings_of(other) == [Encoding("teacher", None, "float16"), TEACHER]
        assert encodings_of(configure(info={"compression": 0, "distillation": 0})) == []

    def test_settings_that_leave_nothing_to_keep(self, configure: Configure) -> None:
        assert encodings_of(configure(augment={"flip": 0.5, "colour": 0.1})) == []
        assert encodings_of(configure(peft={"kind": "lora", "first_block": 2}, cache={"prefix": False})) == [TEACHER]


@pytest.fixture
def stores(materials: Materials, tmp_path: Path) -> Path:
    """Everything that a run with a frozen lower half asks for."""
    for what in ("train", "val", TEACHER, Encoding("base", 2, "float16")):
        materials.content(what).build(tmp_path / "stores")
    return tmp_path / "stores"


def shared(tiny_model: ModelConfig, spores: Path, stores: Path) -> Materials:
    return load_materials(tiny_model, spores, device="cpu", baselines=False, stores=stores)


class TestSharing:
    @pytest.mark.parametrize("augment", [{}, {"flip": 0.5, "colour": 0.2}, {"flip": 0.5}])
    def test_a_run_gives_the_same_numbers_and_keeps_nothing_itself(
        self,
        augment: dict[str, Any],
        stores: Path,
        tiny_model: ModelConfig,
        spores: Path,
        materials: Materials,
        configure: Configure,
    ) -> None:
        config = configure(
            peft={"kind": "lora", "rank": 2, "first_block": 2}, augment=augment, cache={"dtype": "float32"}
        )
        for one in encodings_of(config):
            materials.content(one).build(stores)
        sharing = shared(tiny_model, spores, stores)
        expected = [without_time(report.values) for report in train(config, materials)]
        assert [without_time(report.values) for report in train(config, sharing)] == expected
        assert not sharing.train_set._cache
        assert not sharing.val_set._cache
        assert not sharing.base_encodings._memory

    def test_a_mirrored_image_is_another_row(self, materials: Materials, configure: Configure) -> None:
        (kind,) = encodings_of(configure(augment={"flip": 0.5}))
        plain = materials.content(TEACHER)
        mirrored = materials.content(kind)
        assert (mirrored.rows, kind.variants) == (4 * plain.rows, 4)
        assert mirrored.path(Path()) != plain.path(Path())
        for variant in range(4):
            image = materials.train_set[1].image.numpy()  # fills the canvas
            turned = torch.from_numpy(image[:, :: -1 if variant & 2 else 1, :: -1 if variant & 1 else 1].copy())
            with torch.no_grad():
                expected = materials.base.sam.image_encoder(turned[None])[0]
            assert torch.equal(mirrored.make(4 + variant), expected)

    def test_images_come_back_as_they_were(self, stores: Path, materials: Materials, spores: Path) -> None:
        again = SegmentationDataset(open_dataset(spores), "train", 64, stores=stores)
        for one, other in zip(again, materials.train_set, strict=True):
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.mask, other.mask)
            assert (one.original_hw, one.resized_hw, one.id) == (other.original_hw, other.resized_hw, other.id)

    def test_a_damaged_image_is_decoded_again(self, stores: Path, materials: Materials, spores: Path) -> None:
        path = materials.content("train").path(stores)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        again = SegmentationDataset(open_dataset(spores), "train", 64, stores=stores)
        with pytest.warns(UserWarning, match="is computed instead"):
            images = [item.image for item in again]
        assert all(torch.equal(one, item.image) for one, item in zip(images, materials.train_set, strict=True))
        assert not path.exists()
        materials.content("train").build(stores)
        assert open_store(path, rows=len(again)) is not None

    def test_a_store_that_was_removed_meanwhile_is_read_on(
        self, stores: Path, materials: Materials, tiny_model: ModelConfig, spores: Path
    ) -> None:
        sharing = shared(tiny_model, spores, stores)
        first = sharing.train_set[0]
        materials.content("train").path(stores).unlink()
        assert torch.equal(sharing.train_set[0].image, first.image)

    def test_wide_pictures_and_odd_sizes(self, tmp_path: Path, materials: Materials) -> None:
        kind = type(materials.train_set._resized(0))
        rng = np.random.default_rng(0)
        made = kind(rng.integers(0, 256, (7, 33, 3), np.uint8), rng.random((7, 33)) > 0.5, (70, 333), "wide")
        again = kind.unpacked(made.packed(), "wide")
        assert np.array_equal(again.rgb, made.rgb)
        assert np.array_equal(again.mask, made.mask)
        assert again.original_hw == (70, 333)


def without_time(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name != "cost/seconds"}
