"""Encodings of frozen models: a function of image, weights and type, whether computed, remembered or read from disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import infosam.frozen
from infosam.config import StoredType
from infosam.data.dataset import Batch, collate
from infosam.frozen import FrozenEncodings
from infosam.materials import Materials
from infosam.sam.encoder import encode, enter_block
from infosam.tensor_store import TORCH_TYPES

CPU = torch.device("cpu")


@pytest.fixture
def batch(materials: Materials) -> Batch:
    return collate([materials.train_set[index] for index in range(4)])


def fresh(materials: Materials, stores: Path | None = None) -> FrozenEncodings:
    return FrozenEncodings(materials.base, materials.train_set, CPU, stores)


@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_computed_remembered_and_stored_ones_are_equal(
    materials: Materials, batch: Batch, block: int | None, dtype: StoredType, tmp_path: Path
) -> None:
    encoder = materials.base.sam.image_encoder
    with torch.no_grad():
        plain = encode(encoder, batch.image[:1]) if block is None else enter_block(encoder, batch.image[:1], block)
    encodings = fresh(materials, tmp_path)
    computed = encodings.of(batch, block=block, dtype=dtype)
    assert computed.dtype == torch.float32
    assert torch.equal(computed[:1], plain.to(TORCH_TYPES[dtype]).float())
    assert torch.equal(encodings.of(batch, block=block, dtype=dtype), computed)
    encodings.content(block=block, dtype=dtype).build(tmp_path)
    assert torch.equal(fresh(materials, tmp_path).of(batch, block=block, dtype=dtype), computed)


def test_an_image_does_not_depend_on_its_batch(materials: Materials, batch: Batch) -> None:
    together = fresh(materials).of(batch, block=None, dtype="float32")
    for number in range(4):
        alone = collate([materials.train_set[number]])
        assert torch.equal(fresh(materials).of(alone, block=None, dtype="float32")[0], together[number])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_autocast_around_it_changes_nothing(materials: Materials, batch: Batch, dtype: StoredType) -> None:
    expected = fresh(materials).of(batch, block=2, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fresh(materials).of(batch, block=2, dtype=dtype), expected)


def test_memory_is_bounded(materials: Materials, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infosam.frozen, "MEMORY_MIB", 0)
    encodings = fresh(materials)
    assert torch.equal(
        encodings.of(batch, block=None, dtype="float16"), fresh(materials).of(batch, block=None, dtype="float16")
    )
    assert encodings._memory == {}


def test_an_altered_image_is_encoded_anew_and_forgotten(materials: Materials, batch: Batch) -> None:
    encodings = fresh(materials)
    before = encodings.of(batch, block=None, dtype="float32")
    altered = dataclasses.replace(batch, image=batch.image.flip(3))
    assert not torch.equal(encodings.of(altered, block=None, dtype="float32", variants=None), before)
    assert torch.equal(encodings.of(batch, block=None, dtype="float32"), before)


class TestDamage:
    def test_a_run_computes_what_a_damaged_store_held(self, materials: Materials, batch: Batch, tmp_path: Path) -> None:
        expected = fresh(materials).of(batch, block=None, dtype="float16")
        path = fresh(materials).content(block=None, dtype="float16").build(tmp_path).path
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="is computed instead"):
            read = fresh(materials, tmp_path).of(
                collate([materials.train_set[index] for index in range(len(materials.train_set))]),
                block=None,
                dtype="float16",
            )
        assert torch.equal(read[:4], expected)
        assert not path.exists()  # so that the next sweep builds it again

    def test_building_replaces_a_damaged_store(self, materials: Materials, batch: Batch, tmp_path: Path) -> None:
        content = fresh(materials).content(block=None, dtype="float16")
        path = content.build(tmp_path).path
        sound = path.read_bytes()
        damaged = bytearray(sound)
        damaged[len(sound) // 3] ^= 1
        path.write_bytes(damaged)
        content.build(tmp_path)
        assert path.read_bytes() == sound

    def test_a_sound_store_is_not_built_again(self, materials: Materials, tmp_path: Path) -> None:
        path = fresh(materials).content(block=None, dtype="float16").build(tmp_path).path
        before = path.stat().st_ino
        fresh(materials).content(block=None, dtype="float16").build(tmp_path)
        assert path.stat().st_ino == before
