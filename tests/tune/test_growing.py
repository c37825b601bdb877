"""Slots on a cluster whose nodes come with demand, where too few now are no reason to refuse."""

from __future__ import annotations

import pytest

from tune.config import ResourceConfig
from tune.resources import GROWS, LOOK_S, ClusterTooSmall, Slots, count_slots

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


class Cluster:
    """Nodes of one processor, and a clock."""

    def __init__(self, nodes: int) -> None:
        self.nodes, self.now, self.looks = nodes, 0.0, 0

    def look(self) -> list[dict[str, float]]:
        self.looks += 1
        return [{"CPU": 1.0}] * self.nodes

    def slots(self, **resources: object) -> Slots:
        return Slots(ResourceConfig.model_validate(resources), 2, nodes=self.look, clock=lambda: self.now)


def test_slots_follow_the_nodes() -> None:
    cluster = Cluster(2)
    slots = cluster.slots()
    found = []
    for cluster.nodes in (2, 4, 1, 0, 3):
        cluster.now += LOOK_S
        found.append(slots())
    assert found == [2, 4, 1, 1, 3]


def test_several_workers_of_a_trial_need_as_many_places() -> None:
    cluster = Cluster(5)
    slots = cluster.slots(workers_per_trial=2)
    cluster.now += LOOK_S
    assert slots() == 2


def test_a_number_that_was_given_stays() -> None:
    cluster = Cluster(9)
    slots = cluster.slots(slots=2)
    cluster.now += LOOK_S
    assert slots() == 2
    assert not cluster.looks


def test_nodes_are_looked_at_now_and_then_only() -> None:
    cluster = Cluster(2)
    slots = cluster.slots()
    for _ in range(125):
        cluster.now += LOOK_S / 50
        slots()
    assert cluster.looks == 2
