"""What a training process reports of itself."""

from __future__ import annotations

import math
import time

import pytest

from tune.telemetry import Meter


def test_a_reading_tells_time_processor_and_memory_since_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = {"perf_counter": 10.0, "process_time": 3.0}
    for name in clocks:
        monkeypatch.setattr(time, name, lambda name=name: clocks[name])
    meter = Meter()
    clocks.update(perf_counter=14.0, process_time=9.0)
    values = meter.read()
    assert (values["cost/seconds"], values["cost/cpu_percent"]) == (4.0, 150.0)
    assert 0.001 < values["cost/rss_gib"] < 1000
    clocks.update(perf_counter=15.0)
    assert meter.read()["cost/cpu_percent"] == 0.0


def test_two_readings_at_once_are_numbers() -> None:
    meter = Meter()
    assert all(math.isfinite(value) for _ in range(3) for value in meter.read().values())


@pytest.mark.gpu
def test_a_gpu_tells_its_memory() -> None:
    import torch

    meter = Meter()
    block = torch.zeros(2**28, device="cuda")  # 1 GiB
    del block
    assert meter.read()["cost/gpu_memory_gib"] >= 1.0
    assert meter.read()["cost/gpu_memory_gib"] < 1.0
