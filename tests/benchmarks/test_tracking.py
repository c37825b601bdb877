"""The benchmark of tracking runs, in its quick form, and what it measures is what was promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "tracking.py"
MOST_REQUESTS = 15


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_takes_few_requests_and_survives_a_server_that_dies() -> None:
    done = subprocess.run([sys.executable, str(BENCHMARK), "--quick"], capture_output=True, text=True, timeout=880)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the server is killed") == 3
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["mismatches"] == 0, done.stdout[-3000:]
    assert found["requests_per_trial"] <= MOST_REQUESTS
    assert found["ratio_requests"] < 1
