"""The benchmarks of speed run, in their quick form, and both sides of each do the same work."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Quick = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_steps_of_both_sides_have_the_same_losses(quick: Quick, tmp_path: Path) -> None:
    found = quick("train_step", "--peft", "adapter", "--first-block", "3", "--threads", "1", "--out", str(tmp_path))
    assert found["loss_deviation_float32"] <= 1e-4
    assert 1e-4 < found["loss_deviation_bf16"] < 0.1
    assert found["loss_deviation_float32_float16_cache"] < 1e-2
    assert found["ratio_images_per_s"] > 0
    assert found["ratio_peak_memory"] > 0
    assert 0 < found["model_flops_utilisation"]
    assert 0 < found["ratio_peak_tensors"] < 1
    (file,) = tmp_path.iterdir()
    published = json.loads(file.read_text(encoding="utf-8"))
    assert published["figures"] == found
    assert "train_step.py --quick" in published["command"]
    assert {len(curve) for curve in published["losses"].values()} == {4}


@pytest.mark.slow
def test_both_ways_to_predict_find_the_same(quick: Quick) -> None:
    found = quick("inference", "--threads", "1")
    assert found["iou_least"] > 0.95
    assert found["ratio_images_per_s"] > 0


@pytest.mark.slow
def test_all_forms_of_attention_agree(quick: Quick) -> None:
    found = quick("attention", "--threads", "1")
    errors = {name: value for name, value in found.items() if name.endswith("/error")}
    assert len(errors) == 20  # five forms, two precisions, with and without gradients
    assert all(value <= (1e-5 if "/float32/" in name else 0.05) for name, value in errors.items())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_against_the_stock_pattern(quick: Quick) -> None:
    found = quick("sweep")
    assert found["trials"] == 2
    assert found["ratio_trials_per_hour"] > 0
    assert math.isfinite(found["mean_difference_dice"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_scaling_is_measured(quick: Quick) -> None:
    found = quick("scaling")
    assert found["efficiency_1_workers_1_slots"] == 1
    assert found["efficiency_1_workers_2_slots"] > 0
