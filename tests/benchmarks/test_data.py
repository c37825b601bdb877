"""The benchmark of imports runs in its quick form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_ten_times_the_pictures_need_hardly_more_memory(quick: Callable[..., dict[str, Any]]) -> None:
    found = quick("data")
    assert found["many/rows"] == found["pairs"] == 10 * found["few/rows"]
    assert found["ratio_peak"] < 1.3
    assert found["cluster/many/rows"] == found["few/rows"] == 10 * found["cluster/few/rows"]
    assert found["cluster/few/peak_bytes"] > found["few/peak_bytes"] / 2  # all of its processes are counted
    assert found["ratio_cluster_peak"] < 1.3
    assert found["datasets/rows"] == found["pairs"]
    speeds = (found[f"{who}/rows"] / found[f"{who}/seconds"] for who in ("many", "datasets"))
    assert found["ratio_pairs_per_second"] == pytest.approx(next(speeds) / next(speeds))
