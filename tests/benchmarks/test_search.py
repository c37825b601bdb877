"""The benchmarks of the search run, in their quick form, and end with their figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Quick = Callable[..., dict[str, Any]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_time_lost_per_trial_is_measured_on_all_sides(quick: Quick) -> None:
    found = quick("orchestration")
    for side in ("ours", "plain", "stock"):
        assert found[f"lost_s_per_trial_{side}"] > 0
    assert found["ratio_lost_per_trial"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_growth_of_the_driver_is_measured(quick: Quick) -> None:
    found = quick("scale")
    assert found["trials"] == 40
    assert found["unwritten_records"] == 0
    assert found["ratio_driver_s_per_trial"] > 0
    assert found["ratio_driver_kib_per_trial"] > 0
