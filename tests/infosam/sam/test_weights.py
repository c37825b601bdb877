"""Weights: what is loaded, and what is refused in which words. The files are small but real."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from infosam.config import ModelConfig
from infosam.data.prompts import Prompts
from infosam.errors import WeightsError
from infosam.sam.architectures import ARCHITECTURES, Architecture, architecture, build_sam
from infosam.sam.forward import forward
from infosam.sam.weights import (
    BaseSam,
    load_base,
    load_state,
    nano_card,
    resize_positions,
    save_state,
    sha256_of,
    weights_path,
)


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint `vit_b.pth` that is official by its sum, of a vit_b made small enough to write."""
    small = replace(ARCHITECTURES["vit_b"], image_px=64, width=32, depth=2, heads=2, global_blocks=(1,), window=3,
                    decoder_width=32)  # fmt: skip
    path = tmp_path / "vit_b.pth"
    torch.save(build_sam(small).state_dict(), path)
    monkeypatch.setitem(ARCHITECTURES, "vit_b", replace(small, sha256=sha256_of(path)))
    return path


def refusal(config: ModelConfig) -> str:
    with pytest.raises(WeightsError) as caught:
        load_base(config)
    return str(caught.value)


class TestShipped:
    def test_they_load_frozen_in_eval_mode_on_any_canvas(self, tiny_base: BaseSam) -> None:
        assert tiny_base.spec.image_px == 64
        assert not tiny_base.sam.training
        assert not any(parameter.requires_grad for parameter in tiny_base.sam.parameters())
        assert all(parameter.dtype == torch.float32 for parameter in tiny_base.sam.parameters())
        prompts = Prompts(points=torch.tensor([[[0.0, 0.0], [63.0, 63.0]]]), labels=torch.tensor([[2, 3]]))
        assert forward(tiny_base.sam, torch.zeros(1, 3, 64, 64), prompts).logits.isfinite().all()

    def test_their_card_fits(self, tiny_base: BaseSam) -> None:
        card, path = nano_card(), weights_path(ModelConfig())
        assert card["sha256"] == sha256_of(path) == tiny_base.sha256
        assert card["licence"] == "Apache-2.0"
        assert path.stat().st_size <= 12e6
        assert {"recipe", "steps", "figures"} <= card.keys()

    def test_loading_leaves_the_global_random_state_alone(self, tiny_model: ModelConfig) -> None:
        before = torch.get_rng_state()
        load_base(tiny_model)
        assert torch.equal(torch.get_rng_state(), before)


class TestOfficial:
    def test_the_published_file_is_loaded(self, official: Path) -> None:
        base = load_base(ModelConfig(name="vit_b", checkpoint=official))
        saved = torch.load(official, weights_only=True)
        assert all(torch.equal(tensor, saved[name]) for name, tensor in base.sam.state_dict().items())
        assert base.sha256 == ARCHITECTURES["vit_b"].sha256

    def test_on_another_canvas_positions_are_resized(self, official: Path) -> None:
        base = load_base(ModelConfig(name="vit_b", checkpoint=official, image_px=96))
        assert base.sam.image_encoder.pos_embed.shape == (1, 6, 6, 32)
        prompts = Prompts(points=torch.tensor([[[0.0, 0.0], [95.0, 95.0]]]), labels=torch.tensor([[2, 3]]))
        assert forward(base.sam, torch.zeros(1, 3, 96, 96), prompts).logits.shape == (1, 1, 24, 24)

    def test_a_truncated_file(self, official: Path) -> None:
        official.write_bytes(official.read_bytes()[:-1000])
        message = refusal(ModelConfig(name="vit_b", checkpoint=official))
        assert str(official) in message
        assert f"the official vit_b checkpoint has {ARCHITECTURES['vit_b'].sha256}" in message
        assert "fetch it again" in message

    def test_a_file_of_another_size_of_sam(self, official: Path) -> None:
        message = refusal(ModelConfig(name="vit_l", checkpoint=official))
        assert f"SHA-256 is {sha256_of(official)}" in message
        assert f"official vit_l checkpoint has {ARCHITECTURES['vit_l'].sha256}" in message

    def test_a_pickle_that_runs_code_is_not_run(
        self, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even where the sum is right."""
        official.write_bytes(bomb(tmp_path / "harmed"))
        known = replace(ARCHITECTURES["vit_b"], sha256=sha256_of(official))
        monkeypatch.setitem(ARCHITECTURES, "vit_b", known)
        assert "cannot be read as weights" in refusal(ModelConfig(name="vit_b", checkpoint=official))
        assert not (tmp_path / "harmed").exists()

    @pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
    def test_without_checkpoint_the_sum_of_the_file_to_get_is_named(self, name: str) -> None:
        message = refusal(ModelConfig.model_validate({"name": name}))
        assert "model.checkpoint is not set" in message
        assert str(ARCHITECTURES[name].sha256) in message

    def test_a_missing_file(self, tmp_path: Path) -> None:
        missing = tmp_path / "sam.pth"
        assert refusal(ModelConfig(name="vit_b", checkpoint=missing)) == f"model.checkpoint: no such file: {missing}"
        assert "no such file" in refusal(ModelConfig(name="vit_b", checkpoint=tmp_path))


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.target),)


def bomb(target: Path) -> bytes:
    """A .pth whose loading would make the folder `target`."""
    buffer = io.BytesIO()
    torch.save({"weight": Bomb(target)}, buffer)
    return buffer.getvalue()


class TestFiles:
    def test_a_bomb_is_one(self, tmp_path: Path) -> None:
        """The test above would pass for nothing if this file were harmless."""
        torch.load(io.BytesIO(bomb(tmp_path / "harmed")), weights_only=False)
        assert (tmp_path / "harmed").is_dir()

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    @pytest.mark.parametrize(
        "content", [b"", b"hello world", b"\x80\x02c", b"\x80\x02}q\x00.", b"PK\x03\x04" + b"x" * 40, bytes(range(256))]
    )
    def test_damaged_files_of_every_sort(self, tmp_path: Path, suffix: str, content: bytes) -> None:
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="cannot be read as weights") as caught:
            load_state(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
        assert "weights_only=False" not in str(caught.value)  # torch's own advice, which nobody should follow

    def test_a_truncated_copy_of_ours(self, tmp_path: Path) -> None:
        path = tmp_path / "nano.safetensors"
        path.write_bytes(weights_path(ModelConfig()).read_bytes()[:100_000])
        assert "it may be truncated" in refusal(ModelConfig(checkpoint=path))

    @pytest.mark.parametrize("content", [[1, 2], {"model": {"weight": 1}}])
    def test_a_pickle_without_tensors(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(WeightsError, match="expected a mapping of names to tensors"):
            load_state(tmp_path / "weights.pth")

    def test_a_plain_pickle_of_numbers(self, tmp_path: Path) -> None:
        (tmp_path / "weights.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
        with pytest.raises(WeightsError):
            load_state(tmp_path / "weights.pth")

    def test_weights_of_another_architecture(self, official: Path, tmp_path: Path) -> None:
        message = refusal(ModelConfig(name="vit_nano", checkpoint=official))
        assert f"{official}: not the weights of vit_nano" in message
        assert "size mismatch" in message or "issing key" in message

    @pytest.mark.parametrize("half", [False, True])
    def test_save_and_load(self, tmp_path: Path, tiny_base: BaseSam, half: bool) -> None:
        state = tiny_base.sam.state_dict()
        save_state(state, tmp_path / "weights.safetensors", half=half)
        loaded = load_state(tmp_path / "weights.safetensors")
        assert loaded.keys() == state.keys()
        assert all(tensor.dtype == torch.float32 for tensor in loaded.values())
        for name, tensor in state.items():
            assert torch.equal(loaded[name], tensor.half().float() if half else tensor)

    def test_the_sum_follows_the_content(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"one")
        first = sha256_of(path)
        shutil.copy2(path, tmp_path / "copy")
        path.write_bytes(b"three")
        assert sha256_of(path) != first == sha256_of(tmp_path / "copy")


class TestResizePositions:
    @pytest.fixture
    def spec(self) -> Architecture:
        return architecture("vit_nano", 64)

    def test_equal_shapes_pass_unchanged(self, spec: Architecture) -> None:
        sam = build_sam(spec)
        state = sam.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in resize_positions(state, sam).items())

    def test_there_and_back_a_smooth_field_stays(self, spec: Architecture) -> None:
        small, large = build_sam(spec), build_sam(replace(spec, image_px=128))
        state = small.state_dict()
        line = torch.linspace(0, 1, 8)
        state["image_encoder.pos_embed"] = (line[:, None] + 2 * line)[None, :, :, None].expand(1, 8, 8, 128).clone()
        grown = resize_positions(state, large)
        back = resize_positions(grown, small)
        middle: Tensor = (back["image_encoder.pos_embed"] - state["image_encoder.pos_embed"])[:, 2:-2, 2:-2]
        assert grown["image_encoder.pos_embed"].shape == (1, 16, 16, 128)
        assert middle.abs().max() < 0.02
        assert [name for name, tensor in grown.items() if tensor.shape != state[name].shape] == [
            "image_encoder.pos_embed",
            *(f"image_encoder.blocks.{block}.attn.rel_pos_{axis}" for block in (2, 5) for axis in "hw"),
        ]
        large.load_state_dict(grown)

    def test_relative_ones_follow_the_package(self, spec: Architecture) -> None:
        from segment_anything.modeling.image_encoder import get_rel_pos

        small, large = build_sam(spec), build_sam(replace(spec, image_px=128))
        name = "image_encoder.blocks.2.attn.rel_pos_h"
        table = torch.randn(15, 32, generator=torch.Generator().manual_seed(0))
        ours = resize_positions({**small.state_dict(), name: table}, large)[name]
        assert torch.equal(get_rel_pos(16, 16, table), get_rel_pos(16, 16, ours))
