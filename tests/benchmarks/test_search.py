"""The benchmarks of the search run, in their quick form, and end with their figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def figures(name: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    last: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return last


@pytest.mark.slow
def test_time_lost_per_trial_is_measured_on_all_sides() -> None:
    found = figures("orchestration")
    for side in ("ours", "plain", "stock"):
        assert found[f"lost_s_per_trial_{side}"] > 0
    assert found["ratio_lost_per_trial"] > 0


@pytest.mark.slow
def test_growth_of_the_driver_is_measured() -> None:
    found = figures("scale")
    assert found["trials"] == 40
    assert found["unwritten_records"] == 0
    assert found["ratio_driver_s_per_trial"] > 0
    assert found["ratio_driver_kib_per_trial"] > 0
