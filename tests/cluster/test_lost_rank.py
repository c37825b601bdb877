"""A trial whose two processes lie on two nodes, of which one is lost again and again: by a power cut, and by `ray stop`
as when a machine is shut down. The other node, and the slot's own actor, live on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tune.config import parse_sweep_config
from tune.events import EpochReported, Event
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import make_plan
from tune.resources import SETTINGS, environment
from tune.study import Part, search

EPOCHS = 8
LOSSES = {2: False, 4: True, 6: False}
"""After which epochs the second node is lost, and whether it is told before."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes of one processor; a training process of a trial on each."""
    options = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    with environment(SETTINGS), environment({"RAY_AUTH_MODE": "disabled"}):
        cluster = Cluster(initialize_head=True, head_node_args=options)
        try:
            cluster.add_node(**options)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


class LosingLedger(Ledger):
    """Loses the second node after some epochs, and has another one join."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster, self._left = cluster, dict(LOSSES)

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, EpochReported) and event.epoch in self._left:
            told: Any = self._left.pop(event.epoch)
            (lost,) = self._cluster.worker_nodes
            self._cluster.remove_node(lost, allow_graceful=told)
            self._cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=80 * 2**20)


def test_nodes_of_one_rank_that_are_lost_cost_the_trial_nothing(cluster: Cluster, spores: Path, tmp_path: Path) -> None:
    settings = {
        "data": str(spores),
        "run": {"model": {"image_px": 64}, "train": {"epochs": EPOCHS, "batch_size": 4, "device": "cpu"}},
        "space": {"optim.lr": {"choice": [1e-3]}},
        "search": {"trials": 1, "points": [{"optim.lr": 1e-3}]},
        "scheduler": {"kind": "none"},
        "warm_start": "off",
        "resources": {"workers_per_trial": 2, "max_failures": 1, "slots": 1, "stores": {"build": False}},
    }
    ledger = LosingLedger(cluster)
    plan = make_plan(parse_sweep_config(settings, [], source="test"), Home(folder=tmp_path), "infosam.training")
    search([Part(plan=plan, ledger=ledger)], folder=plan.folder, slots=1)
    (trial,) = ledger.trials.values()
    assert trial.end is not None
    assert (trial.end.reason, trial.end.error) == ("completed", None)
    assert sorted(epoch.epoch for epoch in trial.epochs) == list(range(1, EPOCHS + 1))
