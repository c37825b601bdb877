"""Every metric of a bundle on a split; the quirks of the official scores against the released code's own steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from infosam import metrics
from infosam.assessment import MODELS, RANKED_BY, Assessment, assess_bundle, measure, measure_mask
from infosam.bundle import export_bundle
from infosam.config import RunConfig
from infosam.errors import BundleError, ConfigError, DataError
from infosam.evaluation import evaluate_bundle
from infosam.metrics import METRICS
from infosam.protocols import OFFICIAL, STRICT, ProtocolConfig, choose_protocol
from infosam.training import Materials, train

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def bundle(materials: Materials, configure: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    (report,) = train(configure(train={"epochs": 1}), materials, checkpoint_dir=folder / "checkpoints")
    assert report.checkpoint is not None
    return export_bundle(report.checkpoint, materials, folder / "bundle", card={"domain": "spores"})


@pytest.fixture(scope="module")
def strict(bundle: Path, spores: Path) -> Assessment:
    return assess_bundle(bundle, spores, "val", device="cpu", examples=1)


@pytest.fixture
def case() -> tuple[Tensor, NDArray[np.bool_]]:
    """Logits that are right on most of a disc, and unsure at its edge."""
    y, x = np.mgrid[:40, :50]
    distance = np.hypot(y - 20, x - 25)
    noise = np.random.default_rng(0).normal(0, 0.4, distance.shape)
    return torch.from_numpy((12 - distance) / 6 + noise).float(), distance < 10


class TestMeasure:
    def test_strict_cuts_at_zero_and_squashes(self, case: tuple[Tensor, NDArray[np.bool_]]) -> None:
        logits, truth = case
        found = measure(logits, truth, STRICT)
        assert list(found) == list(METRICS)
        assert found["iou"] == metrics.iou(logits > 0, torch.from_numpy(truth))
        assert found["ber"] == metrics.ber((logits > 0).numpy(), truth)
        probability = (1 / (1 + np.exp(-logits.double().numpy()))).clip(0, 1)
        assert found["s_measure"] == pytest.approx(metrics.s_measure(probability, truth), abs=1e-5)
        assert found["mae"] == pytest.approx(metrics.mae(probability, truth), abs=1e-5)
        assert found["weighted_f"] == pytest.approx(metrics.weighted_f(probability, truth, beta=1), abs=1e-5)

    def test_official_averages_over_five_cuts_through_logits(self, case: tuple[Tensor, NDArray[np.bool_]]) -> None:
        logits, truth = case
        found = measure(logits, truth, OFFICIAL)
        iou, dice = 0.0, 0.0
        for threshold in THRESHOLDS:  # eval_seg
            mask = (logits > threshold).numpy().astype(int)
            both, either = (mask & truth).sum(), (mask | truth).sum()
            iou, dice = iou + (both + 1e-6) / (either + 1e-6), dice + 2 * both / (mask.sum() + truth.sum() + 1e-4)
        assert found["iou"] == pytest.approx(iou / 5, abs=1e-6)
        assert found["dice"] == pytest.approx(dice / 5, abs=1e-6)
        assert found["iou"] != pytest.approx(measure(logits, truth, STRICT)["iou"], abs=1e-3)

    def test_official_maps_are_clipped_logits(self, case: tuple[Tensor, NDArray[np.bool_]]) -> None:
        logits, truth = case
        found = measure(logits, truth, OFFICIAL)
        clipped = np.clip(logits.numpy(), 0, 1)  # _prepare_data
        assert found["s_measure"] == metrics.s_measure(clipped, truth)
        assert found["e_adaptive"] == metrics.e_measure(clipped, truth).adaptive
        assert found["weighted_f"] == metrics.weighted_f(clipped, truth, beta=0.3)
        assert found["mae"] == metrics.mae(clipped, truth)

    @pytest.mark.parametrize(
        ("switches", "changed"),
        [
            ({"thresholds": THRESHOLDS}, {"dice", "iou", "ber", "boundary_f"}),
            ({"map_from": "clipped_logits"}, {name for name, metric in METRICS.items() if metric.takes == "map"}),
            ({"weighted_f_beta": 0.3}, {"weighted_f"}),
            ({"channels": "bgr", "padding": "raw", "seed": 7, "toolbox_empty": True}, set()),
        ],
    )
    def test_a_switch_changes_its_own_metrics(
        self, case: tuple[Tensor, NDArray[np.bool_]], switches: dict[str, object], changed: set[str]
    ) -> None:
        plain, other = measure(*case, STRICT), measure(*case, ProtocolConfig.model_validate(switches))
        assert {name for name in METRICS if plain[name] != other[name]} == changed

    def test_nothing_found_where_nothing_is(self) -> None:
        logits, truth = torch.full((8, 9), -6.0), np.zeros((8, 9), bool)
        strict, official = measure(logits, truth, STRICT), measure(logits, truth, OFFICIAL)
        assert strict["dice"] == strict["weighted_f"] == official["dice"] == 1.0
        assert official["weighted_f"] == official["e_adaptive"] == 0.0  # as the saliency toolboxes say

    def test_a_mask_scores_alike_under_all_cuts_and_maps(self, case: tuple[Tensor, NDArray[np.bool_]]) -> None:
        logits, truth = case
        official = measure_mask(logits > 0, truth, OFFICIAL.model_copy(update={"weighted_f_beta": 1.0}))
        assert official == pytest.approx(measure_mask(logits > 0, truth, STRICT))
        assert official["mae"] == float(((logits > 0).numpy() != truth).mean())


class TestAssessment:
    def test_every_model_has_every_metric_of_every_image(self, strict: Assessment) -> None:
        assert set(strict.scores) == {(model, prompt) for model in MODELS for prompt in ("box", "none")}
        for columns in strict.scores.values():
            assert list(columns) == list(METRICS)
            for values in columns.values():
                assert values.shape == (3,)
                assert ((values >= 0) & (values <= 1)).all()

    def test_it_agrees_with_the_cheap_evaluation(self, strict: Assessment, bundle: Path, spores: Path) -> None:
        table = evaluate_bundle(bundle, spores, "val", device="cpu")
        for row in table.rows:
            for metric, value in (("dice", row.dice), ("iou", row.iou)):
                assert strict.interval(row.model, row.prompt, metric).mean == pytest.approx(value, abs=1e-12)

    def test_intervals_and_gains(self, strict: Assessment) -> None:
        found = strict.interval("adapter", "box", "dice")
        assert found.low <= found.mean <= found.high
        gain = strict.gain("none", "mae")
        difference = strict.scores["adapter", "none"]["mae"] - strict.scores["zero_shot", "none"]["mae"]
        assert gain.mean == pytest.approx(difference.mean())

    def test_examples_are_the_best_and_the_worst(self, strict: Assessment) -> None:
        values = strict.scores["adapter", "box"][RANKED_BY]
        best, worst = strict.examples
        assert (best.best, worst.best) == (True, False)
        assert best.sample.id == strict.ids[int(values.argmax())]
        assert worst.sample.id == strict.ids[int(values.argmin())]
        assert best.scores["adapter"] == pytest.approx(values.max(), abs=2e-3)
        assert best.masks["adapter"].shape == best.sample.mask.shape

    def test_official_names_itself_and_differs(self, strict: Assessment, bundle: Path, spores: Path) -> None:
        told: list[str] = []
        protocol = choose_protocol("official", prompts=["box", "points"])
        official = assess_bundle(bundle, spores, "val", protocol=protocol, device="cpu", progress=told.append)
        assert told == ["zero_shot", "adapter", "trivial baselines"]
        assert official.describe().startswith("official protocol: ")
        assert official.describe().endswith("split val; training seed 0")
        assert {prompt for _, prompt in official.scores} == {"box", "points"}
        ours, theirs = (each.scores["zero_shot", "box"]["iou"] for each in (strict, official))
        assert not np.array_equal(ours, theirs)
        assert official.examples == []

    def test_bad_input_is_refused(self, bundle: Path, spores: Path, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="not an adapter bundle"):
            assess_bundle(tmp_path, spores, "val")
        with pytest.raises(DataError):
            assess_bundle(bundle, tmp_path, "val")
        with pytest.raises(ConfigError, match="must be auto, cpu or cuda"):
            assess_bundle(bundle, spores, "val", device="tpu")
