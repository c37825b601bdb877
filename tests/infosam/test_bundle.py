"""Bundles: they say what they are, and refuse to be something else."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from infosam.bundle import Bundle, copy_bundle, export_bundle, read_bundle, restore
from infosam.config import RunConfig
from infosam.errors import BundleError, BundleMismatch, ConfigError
from infosam.training import Materials, train


@pytest.fixture(scope="module")
def made(
    materials: Materials, configure: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A checkpoint and its bundle."""
    folder = tmp_path_factory.mktemp("run")
    (report,) = train(configure(train={"epochs": 1}), materials, checkpoint_dir=folder / "checkpoints")
    assert report.checkpoint is not None
    out = export_bundle(report.checkpoint, materials, folder / "bundle", card={"domain": "spores", "note": "made here"})
    return report.checkpoint, out


@pytest.fixture
def bundle(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made[1], tmp_path / "bundle"))


def change_card(bundle: Path, **changes: Any) -> None:
    """Puts fields into the card; None removes one."""
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8")) | changes
    kept = {name: value for name, value in card.items() if value is not None}
    (bundle / "card.json").write_text(json.dumps(kept), encoding="utf-8")


class TestExport:
    def test_its_files(self, made: tuple[Path, Path]) -> None:
        files = sorted(str(path.relative_to(made[1])) for path in made[1].rglob("*") if path.is_file())
        assert files == [
            "card.json", "peft/adapter_config.json", "peft/adapter_model.safetensors", "rest.safetensors",
        ]  # fmt: skip
        assert [path.name for path in made[1].parent.iterdir() if path.name.endswith(".part")] == []

    def test_its_card(self, made: tuple[Path, Path], materials: Materials, configure: Callable[..., RunConfig]) -> None:
        card = read_bundle(made[1]).card
        assert card["format"] == 1
        assert card["base"] == {"name": "vit_nano", "sha256": materials.base_sha256, "image_px": 64}
        assert card["config"] == configure(train={"epochs": 1}).model_dump(mode="json")
        assert (card["domain"], card["note"]) == ("spores", "made here")
        assert (card["epoch"], card["seed"], card["data_digest"]) == (1, 0, materials.data_digest)
        assert card["metrics"]["zero_shot"] == materials.zero_shot
        assert card["metrics"]["trivial"] == materials.trivial
        assert "val/box/dice" in card["metrics"]["adapter"]
        assert card["preprocessing"]["longest_side_px"] == 64
        assert card["preprocessing"]["pixel_mean"] == [123.675, 116.28, 103.53]
        assert "box" in card["prompt_protocol"]
        assert {"python", "torch", "peft", "segment-anything", "safetensors"} == card["versions"].keys()
        assert len(card["files"]) == 3
        assert str(made[1].parent) not in json.dumps(card)  # nothing of this machine travels

    def test_each_tensor_is_in_one_file(self, made: tuple[Path, Path]) -> None:
        rest = load_file(made[1] / "rest.safetensors")
        assert any(name.startswith("mask_decoder.") for name in rest)
        assert any(name.startswith("relation.") for name in rest)
        assert not any("lora_" in name for name in rest)
        assert all("lora_" in name for name in load_file(made[1] / "peft" / "adapter_model.safetensors"))

    def test_the_same_checkpoint_gives_the_same_bytes(
        self, made: tuple[Path, Path], materials: Materials, tmp_path: Path
    ) -> None:
        again = export_bundle(made[0], materials, tmp_path / "b", card={"domain": "spores", "note": "made here"})
        for file in (path for path in again.rglob("*") if path.is_file()):
            assert file.read_bytes() == (made[1] / file.relative_to(again)).read_bytes(), file.name

    def test_it_replaces_an_older_bundle(self, made: tuple[Path, Path], materials: Materials, bundle: Path) -> None:
        (bundle / "rest.safetensors").write_bytes(b"damaged")
        (bundle / "left over").write_bytes(b"")
        export_bundle(made[0], materials, bundle, card={})
        assert "note" not in read_bundle(bundle).card
        assert not (bundle / "left over").exists()

    def test_it_leaves_other_folders_alone(self, made: tuple[Path, Path], materials: Materials, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("all of it", encoding="utf-8")
        with pytest.raises(BundleError, match="is not empty and no adapter bundle"):
            export_bundle(made[0], materials, tmp_path, card={})
        assert (tmp_path / "thesis.tex").exists()
        (tmp_path / "empty").mkdir()
        export_bundle(made[0], materials, tmp_path / "empty", card={})

    @pytest.mark.parametrize("file", ["state.json", "student.safetensors"])
    @pytest.mark.parametrize("content", [None, b"", b"{}"])
    def test_a_broken_checkpoint(
        self, made: tuple[Path, Path], materials: Materials, tmp_path: Path, file: str, content: bytes | None
    ) -> None:
        checkpoint = Path(shutil.copytree(made[0], tmp_path / "checkpoint"))
        (checkpoint / file).unlink() if content is None else (checkpoint / file).write_bytes(content)
        with pytest.raises(BundleError, match="not a complete checkpoint"):
            export_bundle(checkpoint, materials, tmp_path / "bundle", card={})
        assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["checkpoint"]


class TestRead:
    def test_a_folder_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"not an adapter bundle, it has no card\.json"):
            read_bundle(tmp_path)

    @pytest.mark.parametrize("file", ["rest.safetensors", "peft/adapter_model.safetensors", "peft/adapter_config.json"])
    def test_a_missing_file(self, bundle: Path, file: str) -> None:
        (bundle / file).unlink()
        with pytest.raises(BundleError, match=f"{file} is missing; fetch the bundle again"):
            read_bundle(bundle)

    @pytest.mark.parametrize("file", ["rest.safetensors", "peft/adapter_model.safetensors", "peft/adapter_config.json"])
    def test_a_single_changed_bit(self, bundle: Path, file: str) -> None:
        content = bytearray((bundle / file).read_bytes())
        content[len(content) // 2] ^= 1
        (bundle / file).write_bytes(content)
        with pytest.raises(BundleError, match=rf"{file}: damaged, its SHA-256 is not the one in card\.json"):
            read_bundle(bundle)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null"])
    def test_a_broken_card(self, bundle: Path, content: bytes) -> None:
        (bundle / "card.json").write_bytes(content)
        with pytest.raises(BundleError, match=r"card\.json: (not valid JSON|expected a mapping)"):
            read_bundle(bundle)

    @pytest.mark.parametrize("field", ["base", "config", "files", "trainable", "seed", "format"])
    @pytest.mark.parametrize("value", [None, "text"])
    def test_a_card_without_what_is_needed(self, bundle: Path, field: str, value: str | None) -> None:
        change_card(bundle, **{field: value})
        with pytest.raises(BundleError, match=f"lacks {field}|format text"):
            read_bundle(bundle)

    def test_a_format_of_another_time(self, bundle: Path) -> None:
        change_card(bundle, format=2)
        with pytest.raises(BundleError, match="format 2, this version of infosam reads format 1"):
            read_bundle(bundle)

    def test_a_configuration_it_does_not_know(self, bundle: Path) -> None:
        change_card(bundle, config={"peft": {"kind": "lorra"}})
        with pytest.raises(ConfigError, match=r"card\.json: config: peft: .*'lorra'"):
            _ = read_bundle(bundle).config

    def test_where_the_base_lies_here(self, bundle: Path) -> None:
        opened = read_bundle(bundle)
        assert opened.model() == opened.config.model
        assert opened.model(Path("here.pth")).checkpoint == Path("here.pth")

    @pytest.mark.parametrize(
        "name", ["../rest.safetensors", "/etc/rest.json", "run.py", "peft\\..\\x.json", "weights.bin"]
    )
    def test_a_card_that_names_what_is_no_part_of_a_bundle(self, bundle: Path, name: str) -> None:
        change_card(bundle, files={name: "0" * 64})
        with pytest.raises(BundleError, match="a bundle is JSON and safetensors in its own folder"):
            read_bundle(bundle)


class TestCopy:
    def test_what_the_card_names_and_nothing_else(self, bundle: Path, tmp_path: Path) -> None:
        (bundle / "run.py").write_text("print('hello')")
        out = copy_bundle(bundle, tmp_path / "copy")
        assert read_bundle(out).card == read_bundle(bundle).card
        assert sorted(path.name for path in out.iterdir()) == ["card.json", "peft", "rest.safetensors"]

    def test_another_bundle_is_replaced(self, bundle: Path, tmp_path: Path) -> None:
        out = copy_bundle(bundle, tmp_path / "copy")
        (out / "left over").write_bytes(b"")
        copy_bundle(bundle, out)
        assert not (out / "left over").exists()

    def test_a_broken_one_changes_nothing(self, bundle: Path, tmp_path: Path) -> None:
        out = copy_bundle(bundle, tmp_path / "copy")
        (bundle / "rest.safetensors").unlink()
        with pytest.raises(BundleError, match="missing"):
            copy_bundle(bundle, out)
        read_bundle(out)

    @pytest.mark.parametrize("is_file", [False, True])
    def test_what_is_no_bundle_is_left_alone(self, bundle: Path, tmp_path: Path, is_file: bool) -> None:
        out = tmp_path / "thesis"
        if is_file:
            out.write_text("all of it")
        else:
            out.mkdir()
            (out / "thesis.tex").write_text("all of it")
        with pytest.raises(BundleError, match="no adapter bundle, so it is left alone"):
            copy_bundle(bundle, out)


class TestRestore:
    def test_it_is_frozen_and_leaves_the_base_alone(self, bundle: Path, materials: Materials) -> None:
        before = {name: tensor.clone() for name, tensor in materials.base.sam.state_dict().items()}
        sam = restore(read_bundle(bundle), materials.base)
        assert not sam.training
        assert not any(parameter.requires_grad for parameter in sam.parameters())
        after = materials.base.sam.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)

    def test_another_base_is_refused(self, bundle: Path, materials: Materials) -> None:
        other = dataclasses.replace(materials.base, sha256="0" * 64)
        with pytest.raises(
            BundleMismatch, match=rf"SHA-256 {materials.base_sha256[:12]}\.\.\., not on .* 000000000000"
        ):
            restore(read_bundle(bundle), other)

    @pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
    def test_tensors_that_do_not_fit(self, bundle: Path, materials: Materials, change: str) -> None:
        """As if somebody had put a bundle together by hand, with right sums."""
        tensors = load_file(bundle / "rest.safetensors")
        if change == "missing":
            del tensors["mask_decoder.iou_token.weight"]
        elif change == "unexpected":
            tensors["mask_decoder.more"] = torch.zeros(1)
        else:
            tensors["mask_decoder.iou_token.weight"] = torch.zeros(2, 3)
        save_file(tensors, bundle / "rest.safetensors")
        with pytest.raises(BundleError, match=r"does not fit|size mismatch"):
            restore(Bundle(path=bundle, card=json.loads((bundle / "card.json").read_text())), materials.base)

    def test_a_rank_other_than_that_of_its_files(self, bundle: Path, materials: Materials) -> None:
        card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
        card["config"]["peft"]["rank"] = 3
        with pytest.raises(BundleError, match="size mismatch"):
            restore(Bundle(path=bundle, card=card), materials.base)
