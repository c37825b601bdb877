"""The paper's five data sets: every configuration trains and scores on stand-in files, beside the published numbers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infosam.config import load_run_config

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SETS = ["camo", "isic2017", "kvasir", "leaf", "road"]


@pytest.mark.parametrize("name", SETS)
def test_configurations_are_the_papers_recipe(name: str) -> None:
    config = load_run_config(BENCHMARKS / "paper" / f"{name}.yaml", ["model.checkpoint=sam_vit_b_01ec64.pth"])
    assert (config.model.name, config.model.image_px, config.train.batch_size) == ("vit_b", None, 4)  # its own 1024 px


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dry_run_fills_every_cell_of_all_five_sets() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "reproduce_paper.py"), "--dry-run"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    methods = {"zero-shot", "decoder only", "Adapter", "Adapter + InfoSAM", "LoRA", "LoRA + InfoSAM"}
    assert {key.split("/")[0] for key in figures} == set(SETS)
    for name in SETS:
        assert {key.split("/")[1] for key in figures if key.startswith(f"{name}/")} == methods
    assert all(math.isfinite(value) for value in figures.values())
    assert "the figures mean nothing" in done.stdout
