"""Benchmarks in their quick form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def quick() -> Callable[..., dict[str, Any]]:
    """Runs benchmarks/NAME.py --quick with further arguments; the figures of its last line."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", *arguments],
            capture_output=True,
            text=True,
            timeout=580,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return figures

    return run
