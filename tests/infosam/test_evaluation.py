"""Scores of a split: both prompts, beside zero-shot and what is trivial."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infosam import metrics
from infosam.baselines import TRIVIAL, ImageScore
from infosam.bundle import export_bundle
from infosam.config import RunConfig
from infosam.data.dataset import SegmentationDataset
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import BundleError, ConfigError, DataError
from infosam.evaluation import (
    PROMPTS,
    EvaluationTable,
    Prompt,
    adapter_dice,
    choose_device,
    evaluate_bundle,
    mean_scores,
    score,
    trivial_means,
)
from infosam.predict import Predictor
from infosam.prompt_files import ImagePrompt
from infosam.sam.weights import BaseSam
from infosam.training import Materials, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle(materials: Materials, configure: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    (report,) = train(configure(train={"epochs": 1}), materials, checkpoint_dir=folder / "checkpoints")
    assert report.checkpoint is not None
    return export_bundle(report.checkpoint, materials, folder / "bundle", card={})


@pytest.fixture(scope="module")
def table(bundle: Path, spores: Path) -> EvaluationTable:
    return evaluate_bundle(bundle, spores, "val", device="cpu")


class TestTable:
    def test_every_model_has_a_row_per_prompt(self, table: EvaluationTable) -> None:
        models = {"adapter", "zero_shot", *TRIVIAL}
        assert {(row.model, row.prompt) for row in table.rows} == {(m, p) for m in models for p in PROMPTS}
        assert {row.images for row in table.rows} == {3}
        assert "split val" in table.protocol
        assert "strict" in table.protocol

    def test_a_row_is_the_mean_over_its_images(self, table: EvaluationTable, spores: Path) -> None:
        ids = open_dataset(spores).ids("val")
        for row in table.rows:
            images = table.per_image[row.model, row.prompt]
            assert [image["id"] for image in images] == ids
            assert row.dice == pytest.approx(np.mean([image["dice"] for image in images]))
            assert row.iou == pytest.approx(np.mean([image["iou"] for image in images]))
            assert 0 <= row.iou <= row.dice <= 1

    def test_it_agrees_with_the_training_that_made_it(self, table: EvaluationTable, materials: Materials) -> None:
        for name, rows in (("zero_shot", materials.zero_shot), ("trivial", materials.trivial)):
            for prompt in PROMPTS:
                row = table.best_trivial(prompt) if name == "trivial" else table.row(name, prompt)
                assert (row.dice, row.iou) == (rows[f"val/{prompt}/dice"], rows[f"val/{prompt}/iou"])

    def test_the_best_trivial_has_the_highest_dice(self, table: EvaluationTable) -> None:
        for prompt in PROMPTS:
            best = table.best_trivial(prompt)
            assert best.dice == max(table.row(name, prompt).dice for name in TRIVIAL)

    def test_dice_per_image(self, table: EvaluationTable, bundle: Path, spores: Path) -> None:
        for prompt in PROMPTS:
            dice = table.dice("adapter", prompt)
            assert dice.tolist() == [image["dice"] for image in table.per_image["adapter", prompt]]
            alone = adapter_dice(bundle, spores, "val", prompt, device="cpu")
            np.testing.assert_allclose(alone, dice, atol=1e-6)

    def test_a_bundle_sees_pictures_as_it_was_trained(self, bundle: Path, spores: Path, tmp_path: Path) -> None:
        """As the released code prepares them, they score what `infosam predict` makes of them."""
        official = Path(shutil.copytree(bundle, tmp_path / "official"))
        card = json.loads((official / "card.json").read_text(encoding="utf-8"))
        card["config"]["model"]["protocol"] = "official"
        (official / "card.json").write_text(json.dumps(card), encoding="utf-8")
        found = adapter_dice(official, spores, "val", "none", device="cpu")
        predictor, store = Predictor(official, device="cpu"), open_dataset(spores)
        for row, dice in enumerate(found):
            sample = store.read("val", row)
            mask = torch.from_numpy(predictor.predict(sample.image))
            assert dice == pytest.approx(metrics.dice(mask, torch.from_numpy(sample.mask)), abs=1e-3)
        assert not np.allclose(found, adapter_dice(bundle, spores, "val", "none", device="cpu"), atol=1e-3)

    def test_an_unknown_row(self, table: EvaluationTable) -> None:
        with pytest.raises(KeyError, match="no row 'adaptor' with prompt 'box'"):
            table.row("adaptor", "box")

    def test_progress_names_what_is_scored(self, bundle: Path, spores: Path) -> None:
        told: list[str] = []
        evaluate_bundle(bundle, spores, "test", device="cpu", progress=told.append)
        assert told == ["zero_shot", "adapter"]

    def test_bad_input_is_refused(self, bundle: Path, spores: Path, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="not an adapter bundle"):
            evaluate_bundle(tmp_path, spores, "val")
        with pytest.raises(DataError):
            evaluate_bundle(bundle, tmp_path, "val")


class TestScore:
    @pytest.mark.parametrize("prompt", PROMPTS)
    def test_it_is_what_a_user_gets(
        self, materials: Materials, bundle: Path, table: EvaluationTable, prompt: Prompt
    ) -> None:
        """Image by image through the predictor, with the box that a user would give."""
        predictor = Predictor(bundle, device="cpu")
        for index, image in enumerate(table.per_image["adapter", prompt]):
            sample = materials.val_set.sample(index)
            rows, columns = np.nonzero(sample.mask)
            box = (float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max()))
            mask = predictor.predict(sample.image, ImagePrompt(box=box) if prompt == "box" else None)
            # Another batch size may move a logit across 0.
            assert metrics.iou(torch.from_numpy(mask), torch.from_numpy(sample.mask)) == pytest.approx(
                image["iou"], abs=2e-3
            )

    def test_the_size_of_a_batch_does_not_matter(self, tiny_base: BaseSam, materials: Materials) -> None:
        one, all_at_once = (
            mean_scores(score(tiny_base.sam, materials.val_set, device=CPU, batch_size=size), "val") for size in (1, 8)
        )
        assert one == pytest.approx(all_at_once, abs=2e-3)

    def test_pictures_of_many_shapes_and_empty_masks(self, tiny_base: BaseSam, tmp_path: Path) -> None:
        source = tmp_path / "source"
        for folder in ("images", "masks"):
            (source / folder).mkdir(parents=True)
        rng = np.random.default_rng(0)
        lines = ["image,label,split"]
        sizes = {"val": [(30, 50), (100, 20), (64, 64)], "train": [(64, 64)], "test": [(64, 64)]}
        for split, (height, width) in ((split, size) for split, sizes_in in sizes.items() for size in sizes_in):
            number = len(lines)
            Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(source / f"images/{number}.png")
            mask = np.zeros((height, width), np.uint8)
            mask[5:15, 4:12] = 255 * (number > 1)
            Image.fromarray(mask).save(source / f"masks/{number}.png")
            lines.append(f"images/{number}.png,masks/{number}.png,{split}")
        (source / "all.csv").write_text("\n".join(lines), encoding="utf-8")
        import_dataset(source / "all.csv", domain="odd", out=tmp_path / "odd", allow_empty=True)
        dataset = SegmentationDataset(open_dataset(tmp_path / "odd"), "val", 64)
        scores = score(tiny_base.sam, dataset, device=CPU)
        assert [len(images) for images in scores.values()] == [3, 3]
        assert scores["box"][0] == scores["none"][0]  # without truth the box is the frame


class TestMeans:
    def test_keys_and_values(self) -> None:
        images = [ImageScore(id="a", iou=0.5, dice=0.6), ImageScore(id="b", iou=1.0, dice=1.0)]
        assert mean_scores({"box": images}, "test") == {"test/box/iou": 0.75, "test/box/dice": 0.8}

    def test_the_trivial_one_is_chosen_per_prompt(self, materials: Materials) -> None:
        means = trivial_means(materials.val_set, "x")
        assert list(means) == ["x/box/dice", "x/box/iou", "x/none/dice", "x/none/iou"]


class TestDevice:
    def test_auto_takes_what_is_there(self) -> None:
        assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert choose_device("cpu") == CPU

    def test_another_name_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="must be auto, cpu or cuda, got 'gpu'"):
            choose_device("gpu")
