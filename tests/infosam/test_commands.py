"""`infosam train | evaluate | predict | synthesize | pretrain` as a user types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from infosam.bundle import read_bundle
from infosam.cli import main
from infosam.data.store import open_dataset


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in this process."""
    monkeypatch.setenv("COLUMNS", "400")  # so that no message is broken into lines

    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        code = caught.value.code
        return Done(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def trained(spores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `infosam train` leaves after one epoch."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.raises(SystemExit) as caught:
        main(["train", "--data", str(spores), "--out", str(out), *SETTINGS])
    assert caught.value.code in (0, None)
    return out


SETTINGS = ("model.image_px=64", "peft.rank=2", "train.epochs=1", "train.batch_size=2", "train.device=cpu")


@pytest.fixture
def pictures(spores_source: Path, tmp_path: Path) -> Path:
    """A folder with images/ and masks/ of three pictures."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            shutil.copy(spores_source / folder / f"test_{number:04d}.png", tmp_path / folder)
    return tmp_path


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def refused(done: Done, message: str) -> None:
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err


class TestTrain:
    def test_it_leaves_a_bundle(self, trained: Path) -> None:
        card = read_bundle(trained / "bundle").card
        assert card["domain"] == "spores"
        assert (card["config"]["peft"]["rank"], card["epoch"]) == (2, 1)

    def test_again_it_is_done_at_once(self, run: Run, spores: Path, trained: Path) -> None:
        done = run("train", "--data", spores, "--out", trained, *SETTINGS)
        assert done.code == 0
        assert done.out.count("epoch") == 1  # told again, not trained again
        assert f"bundle: {trained / 'bundle'}" in done.out

    def test_it_tells_each_epoch_and_the_baselines(self, run: Run, spores: Path, tmp_path: Path) -> None:
        file = tmp_path / "run.yaml"
        file.write_text("peft: {kind: decoder}\ninfo: {compression: 0, distillation: 0}\n", encoding="utf-8")
        settings = [setting for setting in SETTINGS if not setting.startswith("peft")]
        done = run("train", "--config", file, "--data", spores, "--out", tmp_path / "out", *settings)
        assert done.code == 0
        for text in ("epoch 1/1", "loss ", "val Dice box", "best", "zero-shot", "best trivial"):
            assert text in done.out

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (["peft.rnk=3"], "peft.rnk: unknown setting; did you mean 'rank'?"),
            (["peft.rank=0"], "peft.rank: Input should be greater than or equal to 1, got 0"),
            (["train.batch_size=1"], "train.batch_size must be >= 2"),
            (["train.batch_size=500"], "the train split has 7 images, fewer than train.batch_size = 500"),
            (["peft.first_block=6"], "peft.first_block must be below 6"),
            (["model.image_px=60"], "model.image_px must be a multiple of the patch size 8"),
            (["model.name=vit_b"], "model.checkpoint is not set"),
            (["model.checkpoint=no.safetensors"], "model.checkpoint: no such file"),
            (["train.epochs"], "is not of the form a.b=value"),
        ],
    )
    def test_bad_settings_are_refused_before_any_training(
        self, run: Run, spores: Path, tmp_path: Path, settings: list[str], message: str
    ) -> None:
        refused(run("train", "--data", spores, "--out", tmp_path / "out", *SETTINGS, *settings), message)
        assert not (tmp_path / "out").exists()

    def test_data_that_are_none(self, run: Run, spores_source: Path, tmp_path: Path) -> None:
        assert run("train", "--data", spores_source, "--out", tmp_path / "out").code == 2

    def test_a_wrong_checkpoint(self, run: Run, spores: Path, tmp_path: Path) -> None:
        (tmp_path / "sam.pth").write_bytes(b"an error page instead of weights")
        settings = ["model.name=vit_b", f"model.checkpoint={tmp_path / 'sam.pth'}"]
        done = run("train", "--data", spores, "--out", tmp_path / "out", *settings)
        refused(done, "but the official vit_b checkpoint has ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91")

    def test_a_folder_of_another_run(self, run: Run, spores: Path, trained: Path) -> None:
        done = run("train", "--data", spores, "--out", trained, *SETTINGS, "train.seed=9")
        refused(done, "holds checkpoints of another configuration")


class TestEvaluate:
    def test_a_table_with_its_protocol(self, run: Run, spores: Path, trained: Path) -> None:
        done = run("evaluate", trained / "bundle", "--data", spores, "--device", "cpu")
        assert done.code == 0
        for text in ("adapter", "zero_shot", "box_filled", "inscribed_ellipse", "none", "strict protocol", "split test",
                     "training seed 0"):  # fmt: skip
            assert text in done.out

    @pytest.mark.parametrize("protocol", ["strict", "official"])
    def test_it_leaves_scores_and_a_page(
        self, run: Run, spores: Path, trained: Path, tmp_path: Path, protocol: str
    ) -> None:
        out = tmp_path / "out"
        arguments = ["--data", spores, "--device", "cpu", "--protocol", protocol, "--out", out, "--examples", 1]
        done = run("evaluate", trained / "bundle", *arguments)
        assert done.code == 0
        assert f"{protocol} protocol" in done.out
        assert f"page: {out / 'report.html'}" in done.out
        assert sorted(path.name for path in out.iterdir()) == ["report.html", "scores.parquet"]

    def test_other_prompts(self, run: Run, spores: Path, trained: Path) -> None:
        arguments = ["--data", spores, "--device", "cpu", "--prompt", "points", "--prompt", "box", "--jitter", "0.1"]
        done = run("evaluate", trained / "bundle", *arguments)
        assert done.code == 0
        for text in ("prompt points", "prompt box", "box_jitter 0.1"):
            assert text in done.out
        assert "prompt none" not in done.out

    def test_bad_input(self, run: Run, spores: Path, trained: Path, tmp_path: Path) -> None:
        bundle = trained / "bundle"
        refused(
            run("evaluate", bundle, "--data", spores, "--protocol", "paper"),
            "must be one of strict, official, got 'paper'",
        )
        refused(run("evaluate", bundle, "--data", spores, "--prompt", "boxes"), "must be one of box, points, none")
        refused(run("evaluate", bundle, "--data", spores, "--jitter", "2"), "jitter must be between 0 and 0.5")
        refused(run("evaluate", bundle, "--data", spores, "--out", bundle / "card.json"), "choose another")
        refused(run("evaluate", bundle, "--data", spores, "--split", "tset"), "--split must be one of train, val, test")
        refused(run("evaluate", tmp_path, "--data", spores), "not an adapter bundle")
        refused(run("evaluate", bundle, "--data", tmp_path / "gone"), "gone")
        refused(run("evaluate", bundle, "--data", spores, "--device", "tpu"), "must be auto, cpu or cuda, got 'tpu'")


class TestPredict:
    def test_a_folder_without_prompts(self, run: Run, pictures: Path, trained: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        done = run("predict", "--bundle", trained / "bundle", pictures / "images", "--out", out, "--device", "cpu")
        assert done.code == 0
        names = [f"test_{number:04d}.png" for number in range(3)]
        for folder in ("masks", "overlays"):
            assert sorted(path.name for path in (out / folder).iterdir()) == names
        for name in names:
            assert name in done.out
            mask = pixels(out / "masks" / name)
            assert mask.shape == (64, 64)
            assert set(np.unique(mask)) <= {0, 255}
            assert pixels(out / "overlays" / name).shape == (64, 64, 3)
        assert "IoU" not in done.out

    def test_truth_prompts_and_scores(
        self, run: Run, pictures: Path, trained: Path, tmp_path: Path, spores: Path
    ) -> None:
        out = tmp_path / "out"
        done = run("predict", "--bundle", trained / "bundle", pictures / "images", "--truth", pictures / "masks",
                   "--out", out)  # fmt: skip
        assert done.code == 0
        for text in ("IoU", "Dice", "box"):
            assert text in done.out
        truth = open_dataset(spores).read("test", 0).mask
        predicted = pixels(out / "masks" / "test_0000.png") > 0
        union = (predicted | truth).sum()
        assert f"{(predicted & truth).sum() / union:.4f}" in done.out

    @pytest.mark.parametrize("suffix", ["json", "csv"])
    def test_prompts_for_some(self, run: Run, pictures: Path, trained: Path, tmp_path: Path, suffix: str) -> None:
        prompts = tmp_path / f"prompts.{suffix}"
        if suffix == "json":
            content = {"test_0000.png": {"box": [5, 5, 40, 50]}, "test_0001.png": {"points": [[9, 9, 1], [1, 1, 0]]}}
            prompts.write_text(json.dumps(content), encoding="utf-8")
        else:
            prompts.write_text("image,x0,y0,x1,y1\ntest_0000.png,5,5,40,50\n", encoding="utf-8")
        done = run("predict", "--bundle", trained / "bundle", pictures / "images", "--prompts", prompts, "--out",
                   tmp_path / "out")  # fmt: skip
        assert done.code == 0
        rows = {line.split()[1]: line for line in done.out.splitlines() if ".png" in line}
        assert " box " in rows["test_0000.png"]
        assert " none " in rows["test_0002.png"]
        assert ("2 points" in rows["test_0001.png"]) == (suffix == "json")

    def test_a_domain_without_champion(self, run: Run, pictures: Path, tmp_path: Path) -> None:
        done = run("predict", "--domain", "polpy", pictures / "images", "--out", tmp_path / "out")
        refused(done, "domain 'polpy' has no champion")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("options", [[], ["--domain", "spores", "--bundle", "here"]])
    def test_one_of_domain_and_bundle(self, run: Run, pictures: Path, tmp_path: Path, options: list[str]) -> None:
        done = run("predict", pictures / "images", "--out", tmp_path / "out", *options)
        refused(done, "give either --domain (its champion is used) or --bundle")

    def test_prompts_and_truth_exclude_each_other(self, run: Run, pictures: Path, tmp_path: Path) -> None:
        done = run("predict", pictures / "images", "--out", tmp_path / "out", "--bundle", "here", "--prompts", "p.json",
                   "--truth", pictures / "masks")  # fmt: skip
        refused(done, "give --prompts or --truth, not both")


class TestPredictRefusals:
    """Everything is checked before the first mask is made."""

    @pytest.fixture
    def predict(self, run: Run, pictures: Path, trained: Path, tmp_path: Path) -> Run:
        out = tmp_path / "out"

        def predict(*arguments: object, images: Path = pictures / "images") -> Done:
            done = run("predict", "--bundle", trained / "bundle", images, "--out", out, *arguments)
            assert not out.exists()
            return done

        return predict

    def test_names_that_clash(self, predict: Run, pictures: Path) -> None:
        shutil.copy(pictures / "images" / "test_0000.png", pictures / "images" / "test_0000.jpg")
        refused(predict(), "several images are called 'test_0000' and their masks would overwrite each other")

    def test_a_broken_image(self, predict: Run, pictures: Path) -> None:
        (pictures / "images" / "test_0002.png").write_bytes(b"no picture")
        refused(predict(), "test_0002.png: cannot be read as an image")

    def test_no_images(self, predict: Run, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        refused(predict(images=tmp_path / "empty"), "no images in")
        refused(predict(images=tmp_path / "gone"), "gone: no such image or folder")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"other.png": {"box": [1, 1, 2, 2]}}, "has a prompt for 'other.png', which is not among the images"),
            ({"test_0001.png": {"box": [1, 1, 64.5, 2]}}, "test_0001.png: (64.5, 2) lies outside the image of 64 x 64"),
            ({"test_0001.png": {"box": [9, 1, 5, 2]}}, "has no area"),
        ],
    )
    def test_prompts_that_do_not_fit(
        self, predict: Run, tmp_path: Path, content: dict[str, object], message: str
    ) -> None:
        (tmp_path / "prompts.json").write_text(json.dumps(content), encoding="utf-8")
        refused(predict("--prompts", tmp_path / "prompts.json"), message)

    def test_a_truth_that_is_missing(self, predict: Run, pictures: Path) -> None:
        (pictures / "masks" / "test_0002.png").unlink()
        refused(predict("--truth", pictures / "masks"), "--truth: no mask called test_0002.*")
        refused(predict("--truth", pictures / "gone"), "--truth: ")

    def test_a_truth_of_another_size(self, predict: Run, pictures: Path) -> None:
        Image.new("L", (32, 64)).save(pictures / "masks" / "test_0002.png")
        refused(predict("--truth", pictures / "masks"), "test_0002.png is 32 x 64 px, ")

    def test_a_truth_that_is_no_mask(self, predict: Run, pictures: Path) -> None:
        shutil.copy(pictures / "images" / "test_0002.png", pictures / "masks" / "test_0002.png")
        refused(predict("--truth", pictures / "masks"), "different values")

    def test_one_truth_for_several_images(self, predict: Run, pictures: Path) -> None:
        refused(predict("--truth", pictures / "masks" / "test_0000.png"), "is one mask for 3 images")

    def test_a_bundle_that_is_none(self, run: Run, pictures: Path, tmp_path: Path) -> None:
        done = run("predict", "--bundle", pictures, pictures / "images", "--out", tmp_path / "out")
        refused(done, "not an adapter bundle, it has no card.json")


class TestSynthesize:
    def test_it_can_be_imported(self, run: Run, tmp_path: Path) -> None:
        done = run("synthesize", "--out", tmp_path / "spores", "--train", 2, "--val", 1, "--test", 1)
        assert done.code == 0
        assert "infosam data import" in done.out
        done = run("data", "import", tmp_path / "spores", "--domain", "spores", "--out", tmp_path / "data")
        assert done.code == 0

    def test_a_folder_in_use(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
        refused(run("synthesize", "--out", tmp_path), "is not empty; choose a new folder")


class TestPretrain:
    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("smal_px=64", "smal_px: unknown setting; did you mean 'small_px'?"),
            ("small_px=100", "small_px: Input should be a multiple of 8, got 100"),
            ("prompts.box=1", "prompts: the shares box + point + points + none must sum to 1"),
        ],
    )
    def test_bad_settings(self, run: Run, tmp_path: Path, setting: str, message: str) -> None:
        refused(run("pretrain", "--out", tmp_path / "out", setting), message)
        assert not (tmp_path / "out").exists()
