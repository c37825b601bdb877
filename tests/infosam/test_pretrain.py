"""Pre-training: resumed it gives the same weights, and another recipe is refused."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import infosam.pretrain
from infosam.config import validate
from infosam.errors import ConfigError
from infosam.pretrain import PretrainConfig, pretrain, pretrain_loss, schedule
from infosam.synthetic import scenes


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Few textures and few scenes to score: both cost seconds and are tested elsewhere."""
    patch.setattr(scenes, "BANK_SIZE", 6)
    patch.setattr(infosam.pretrain, "validate", partial(infosam.pretrain.validate, scenes=3))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


def recipe(**settings: Any) -> PretrainConfig:
    """Two steps on 64 px, then two on the canvas of vit_nano."""
    tiny = {
        "small_px": 64,
        "small_steps": 2,
        "full_steps": 2,
        "images_per_step": 1,
        "masks_per_image": 2,
        "lr": 1e-3,
        "bf16": False,
    }
    return validate(PretrainConfig, {**tiny, **settings}, "test")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        reports = list(pretrain(recipe(), folder, report_every=100))
    assert [report.step for report in reports] == [2, 4]
    assert all(0 <= iou <= 1 for report in reports for iou in (report.box_iou, report.point_iou))
    assert all(report.loss > 0 for report in reports)
    return folder


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resumed_it_gives_the_same_weights(whole: Path, tmp_path: Path, stop: int) -> None:
    """Stopped within the first stage, between the stages, and within the second."""
    run = pretrain(recipe(), tmp_path, report_every=1)
    for _ in range(stop):
        next(run)
    run.close()
    rest = list(pretrain(recipe(), tmp_path, report_every=100))
    assert rest[-1].step == 4
    expected, found = weights(whole), weights(tmp_path)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_a_finished_run_is_finished(whole: Path) -> None:
    before = (whole / "weights.safetensors").stat().st_mtime_ns
    assert list(pretrain(recipe(), whole)) == []
    assert (whole / "weights.safetensors").stat().st_mtime_ns == before


def test_it_says_what_it_is(whole: Path) -> None:
    state = json.loads((whole / "state.json").read_text(encoding="utf-8"))
    assert (state["step"], state["image_px"]) == (4, 192)
    assert state["config"] == recipe().model_dump(mode="json")
    assert {"box_iou", "point_iou"} <= state.keys()


def test_another_recipe_is_refused(whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"another recipe \(lr 0\.001, not 0\.002; seed 0, not 1\); choose another"):
        next(pretrain(recipe(lr=2e-3, seed=1), whole))


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(ConfigError, match="small_steps and full_steps are both 0"):
        recipe(small_steps=0, full_steps=0)


def test_its_seed_decides_and_global_chance_does_not(tmp_path: Path) -> None:
    settings = {"small_steps": 1, "full_steps": 0}
    state = torch.get_rng_state()
    list(pretrain(recipe(**settings), tmp_path / "one"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        list(pretrain(recipe(**settings), tmp_path / "two"))
    list(pretrain(recipe(**settings, seed=1), tmp_path / "three"))
    one, two, three = (weights(tmp_path / name) for name in ("one", "two", "three"))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], three[name]) for name in one)


class TestSchedule:
    def test_it_rises_then_falls_to_a_hundredth(self) -> None:
        rates = [schedule(step, 1000) for step in range(1000)]
        assert rates[0] == pytest.approx(1 / 100)
        assert max(rates) == pytest.approx(1)
        assert rates.index(max(rates)) in (99, 100)
        assert rates[-1] == pytest.approx(0.01, abs=1e-4)
        assert all(later <= earlier for earlier, later in pairwise(rates[100:]))

    @pytest.mark.parametrize("steps", [1, 2, 9, 10])
    def test_short_runs_have_one_too(self, steps: int) -> None:
        assert all(0 < schedule(step, steps) <= 1 for step in range(steps))


class TestLoss:
    @pytest.fixture
    def target(self) -> torch.Tensor:
        """(2, 16, 16): a square of 6 x 4, and one cell."""
        target = torch.zeros(2, 16, 16)
        target[0, 2:8, 3:7] = 1
        target[1, 5, 5] = 1
        return target

    def test_it_is_its_parts(self, target: torch.Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        logits, predicted = torch.randn(2, 4, 16, 16, generator=generator), torch.rand(2, 4, generator=generator)
        singles, errors, best = [], [], []
        for prompt, extent in enumerate((24, 16)):  # the box of one cell counts as a sixteenth of the canvas
            parts = []
            for token in range(4):
                score, truth = logits[prompt, token], target[prompt]
                bce = F.binary_cross_entropy_with_logits(score, truth, reduction="sum") / extent
                share = score.sigmoid()
                dice = (2 * (share * truth).sum() + 1) / (share.sum() + truth.sum() + 1)
                parts.append(bce + 1 - dice)
                hit, truth_in = score > 0, truth > 0.5
                iou = (hit & truth_in).sum() / (hit | truth_in).sum()
                errors.append((predicted[prompt, token] - iou) ** 2)
            singles.append(parts[0])
            best.append(min(parts[1:]))
        expected = sum(singles) / 2 + 0.25 * sum(best) / 2 + 0.25 * sum(errors) / 8
        torch.testing.assert_close(pretrain_loss(logits, predicted, target), torch.as_tensor(expected))

    def test_a_perfect_answer_costs_almost_nothing(self, target: torch.Tensor) -> None:
        logits = ((target * 2 - 1) * 30).unsqueeze(1).expand(-1, 4, -1, -1)
        assert pretrain_loss(logits, torch.ones(2, 4), target).item() == pytest.approx(0, abs=1e-5)
        assert pretrain_loss(-logits, torch.ones(2, 4), target) > 10
