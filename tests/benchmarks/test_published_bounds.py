"""The newest published results keep the bounds that the engine promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("name", "figure", "bound"),
    [
        ("orchestration", "ratio_lost_per_trial", 0.1),
        ("scale", "ratio_driver_s_per_trial", 1.2),
        ("scale", "ratio_driver_kib_per_trial", 1.2),
    ],
)
def test_the_newest_result_keeps_its_bound(name: str, figure: str, bound: float) -> None:
    newest = max(RESULTS.glob(f"????-??-??-{name}.json"))
    result = json.loads(newest.read_text(encoding="utf-8"))
    assert 0 < result["figures"][figure] <= bound, newest.name
