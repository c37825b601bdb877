"""Slots on a cluster whose nodes come with demand, where too few now are no reason to refuse."""

from __future__ import annotations

import pytest

from tune.config import ResourceConfig
from tune.resources import GROWS, ClusterTooSmall, count_slots

HEAD_ONLY = [{"CPU": 0.0}]
GPU_TRIAL = {"gpus_per_worker": 1, "slots": 8}


def test_a_sweep_waits_for_nodes_where_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GROWS, "1")
    assert count_slots(ResourceConfig.model_validate(GPU_TRIAL), HEAD_ONLY, 64) == 8
    assert count_slots(ResourceConfig.model_validate(GPU_TRIAL), HEAD_ONLY, 3) == 3


def test_the_number_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GROWS, "1")
    with pytest.raises(ClusterTooSmall, match=r"resources\.slots=8"):
        count_slots(ResourceConfig(gpus_per_worker=1), HEAD_ONLY, 64)
    there = [*HEAD_ONLY, {"CPU": 8.0, "GPU": 2.0}]
    assert count_slots(ResourceConfig(gpus_per_worker=1), there, 64) == 2


def test_elsewhere_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GROWS, raising=False)
    with pytest.raises(ClusterTooSmall, match="no node can hold one worker"):
        count_slots(ResourceConfig.model_validate(GPU_TRIAL), HEAD_ONLY, 64)
