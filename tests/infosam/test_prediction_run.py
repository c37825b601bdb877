"""`infosam predict --domain auto`, and the other forms of its masks, as a user types them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infosam.bundle import read_bundle
from infosam.cli import main
from infosam.peft.config import LoraConfig
from infosam.predict import Predictor, read_image
from infosam.prompt_files import ImagePrompt
from infosam.routing import gather
from infosam.training import Materials

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Exit code and everything that was printed."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0), " ".join((printed.out + printed.err).replace("│", " ").split())

    return run


@pytest.fixture
def pictures(domains: dict[str, Materials], tmp_path: Path) -> Path:
    """A folder with two images of each of three domains, and one of none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, of in domains.items():
        for row in range(2):
            Image.fromarray(of.train_set.store.read("test", row).image).save(folder / f"{name}_{row}.png")
    noise = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


@pytest.fixture
def bundles(routed: dict[str, Path]) -> list[object]:
    return [part for bundle in routed.values() for part in ("--bundle", bundle)]


def summary(out: Path) -> dict[str, dict[str, str]]:
    """Rows by the stem of their image."""
    with (out / "summary.csv").open(newline="", encoding="utf-8") as stream:
        return {Path(row["image"]).stem: row for row in csv.DictReader(stream)}


def mask(out: Path, name: str) -> np.ndarray:
    with Image.open(out / "masks" / f"{name}.png") as image:
        return np.asarray(image) > 0


class TestAuto:
    def test_each_image_by_the_adapter_of_its_domain(
        self, run: Command, pictures: Path, bundles, routed, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        code, printed = run("predict", pictures, "--domain", "auto", *bundles, "--out", out, "--device", "cpu")
        assert code == 0
        assert "negative 2, spores 2, violet 2, of no known domain, so by SAM without adapter: 1" in printed
        rows = summary(out)
        for stem, row in rows.items():
            name = stem.split("_")[0]
            known = "" if name == "noise" else name
            assert row["domain"] == known
            assert (float(row["score"]) <= float(row["threshold"])) == bool(known)
            source = routed[name] if known else read_bundle(routed["spores"]).model()
            expected = Predictor(source, device="cpu").logits(read_image(pictures / f"{stem}.png"))
            assert ((expected > 0) == mask(out, stem))[np.abs(expected) > 1e-3].all()
            assert (out / "overlays" / f"{stem}.png").is_file()
        assert "like no domain here" in rows["noise"]["reason"]

    def test_prompts_and_patterns(self, run: Command, pictures: Path, bundles, routed, tmp_path: Path) -> None:
        prompts = tmp_path / "boxes.json"
        prompts.write_text(json.dumps({"spores_0.png": {"box": [5, 5, 40, 50]}}), encoding="utf-8")
        out = tmp_path / "out"
        code, _ = run("predict", f"{pictures}/spores_*.png", "--domain", "auto", *bundles, "--out", out,
                      "--prompts", prompts)  # fmt: skip
        assert code == 0
        rows = summary(out)
        assert {stem: row["prompt"] for stem, row in rows.items()} == {"spores_0": "box", "spores_1": "none"}
        picture = read_image(pictures / "spores_0.png")
        expected = Predictor(routed["spores"]).logits(picture, ImagePrompt(box=(5, 5, 40, 50)))
        assert ((expected > 0) == mask(out, "spores_0"))[np.abs(expected) > 1e-3].all()

    def test_one_name_in_several_folders(self, run: Command, pictures: Path, bundles, routed, tmp_path: Path) -> None:
        """Subfolders are kept, and a prompt means the image that its path names."""
        for name in ("spores", "violet"):
            (pictures / name).mkdir()
            (pictures / f"{name}_0.png").rename(pictures / name / "a.png")
        prompts, out = tmp_path / "points.csv", tmp_path / "out"
        prompts.write_text("image,x,y,label\nviolet/a.png,9,9,1\nviolet/a.png,1,1,0\n", encoding="utf-8")
        code, printed = run("predict", f"{pictures}/**/a.png", "--domain", "auto", *bundles, "--out", out,
                            "--prompts", prompts)  # fmt: skip
        assert code == 0, printed
        with (out / "summary.csv").open(newline="", encoding="utf-8") as stream:
            rows = {Path(row["image"]).parent.name: row for row in csv.DictReader(stream)}
        assert {name: (row["domain"], row["prompt"]) for name, row in rows.items()} == {
            "spores": ("spores", "none"), "violet": ("violet", "2 points"),
        }  # fmt: skip
        for name, prompt in (("spores", None), ("violet", ImagePrompt(points=((9, 9, 1), (1, 1, 0))))):
            expected = Predictor(routed[name]).logits(read_image(pictures / name / "a.png"), prompt)
            assert ((expected > 0) == mask(out, f"{name}/a"))[np.abs(expected) > 1e-3].all()
            assert (out / "overlays" / name / "a.png").is_file()
        prompts.write_text("image,x,y,label\na.png,9,9,1\n", encoding="utf-8")
        code, printed = run("predict", f"{pictures}/**/a.png", "--domain", "auto", *bundles, "--out", out,
                            "--prompts", prompts)  # fmt: skip
        assert code == 2
        assert "'a.png' may mean spores/a.png or violet/a.png" in printed

    @pytest.mark.parametrize("named", [True, False])
    def test_plain_sam_can_be_asked_for(
        self, run: Command, pictures: Path, bundles, routed, tmp_path: Path, named: bool
    ) -> None:
        out = tmp_path / "out"
        code, _ = run("predict", pictures, "--domain", "none", *(bundles if named else ()), "--out", out)
        assert code == 0
        rows = summary(out)
        assert {row["domain"] for row in rows.values()} == {""}
        assert {row["reason"] for row in rows.values()} == {"plain SAM was asked for"}
        if named:
            plain = Predictor(read_bundle(routed["spores"]).model()).logits(read_image(pictures / "spores_0.png"))
            assert ((plain > 0) == mask(out, "spores_0"))[np.abs(plain) > 1e-3].all()

    def test_champions_with_a_broken_one(
        self, run: Command, pictures: Path, routed, make_bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        broken = Path(shutil.copytree(routed["violet"], tmp_path / "broken"))
        (broken / "rest.safetensors").unlink()
        places = {**routed, "violet": broken, "old": make_bundle(LoraConfig(rank=2))}
        monkeypatch.setattr(gather, "known_domains", lambda: (sorted(places), []))
        monkeypatch.setattr(gather, "resolve_domain", places.__getitem__)
        out = tmp_path / "out"
        code, printed = run("predict", pictures, "--domain", "auto", "--out", out)
        assert code == 0
        assert "warning: violet is left out: " in printed
        assert "rest.safetensors is missing" in printed
        assert "warning: old is never chosen automatically: " in printed
        chosen = {stem: row["domain"] for stem, row in summary(out).items()}
        assert chosen["spores_0"] == "spores"
        assert chosen["violet_0"] == ""


class TestRefusals:
    """Nothing is written."""

    @pytest.mark.parametrize("options", [(), ("--domain", "spores")])
    def test_several_bundles_without_auto(
        self, run: Command, pictures: Path, bundles, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        code, printed = run("predict", pictures, *options, *bundles, "--out", tmp_path / "out")
        assert code == 2
        assert "several --bundle need --domain auto" in printed
        assert not (tmp_path / "out").exists()

    def test_auto_without_champions(self, run: Command, pictures: Path, tmp_path: Path) -> None:
        code, printed = run("predict", pictures, "--domain", "auto", "--out", tmp_path / "out")
        assert code == 2
        assert "no domain has a champion yet" in printed
        assert not (tmp_path / "out").exists()

    def test_nothing_that_can_be_chosen(self, run: Command, pictures: Path, make_bundle, tmp_path: Path) -> None:
        bundle = make_bundle(LoraConfig(rank=2))
        code, printed = run("predict", pictures, "--domain", "auto", "--bundle", bundle, "--out", tmp_path / "out")
        assert code == 2
        assert "no adapter here can be chosen automatically" in printed
        assert "has no statistics of its images" in printed
        assert not (tmp_path / "out").exists()

    def test_a_format_that_is_none(self, run: Command, pictures: Path, bundles, tmp_path: Path) -> None:
        code, printed = run("predict", pictures, "--domain", "auto", *bundles, "--out", tmp_path, "--format", "tiff")
        assert code == 2
        assert "--format must be one of png, coco, got 'tiff'" in printed


def test_coco_instead_of_pictures(run: Command, pictures: Path, routed, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed = run("predict", pictures, "--bundle", routed["spores"], "--out", out, "--format", "coco")
    assert code == 0
    assert str(out / "masks.json") in printed
    assert not (out / "masks").exists()
    content = json.loads((out / "masks.json").read_text(encoding="utf-8"))
    assert len(content["images"]) == 7
    assert [category["name"] for category in content["categories"]] == ["spores"]
    assert {row["domain"] for row in summary(out).values()} == {"spores"}
