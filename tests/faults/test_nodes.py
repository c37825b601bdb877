"""Machines that are taken away under a trial, which loses two of them and may not fail that often."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ray
from processes import children_of, parent_of, slot_process
from ray._private.node import Node
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from sweep_check import check_resources, lasting_rows, reported, rows

from infosam.data.store import import_dataset
from infosam.synthetic import write_demo_domain
from tune.config import SweepConfig, parse_sweep_config
from tune.event_log import NAME, EventLog
from tune.events import EpochReported, Event
from tune.home import Home
from tune.ledger import Ledger, TrialRecord
from tune.node_loss import SILENT
from tune.plan import SweepPlan, make_plan
from tune.ray_private import died_by_itself
from tune.study import Part, search

CPUS = 3
"""Of a worker, which the head's two do not hold: it runs on the nodes that the test adds."""
EPOCHS = 30
FIRST, SECOND = 2, 5
"""Epochs after which a node is lost."""
PATIENCE_S = 60.0

Once = Callable[[Path, Callable[[Event], bool], Callable[[Event], Any]], threading.Thread]


def kill(cluster: Cluster, node: Node) -> None:
    """As a machine that loses its power: everything ends at once, and nobody is told."""
    raylet = raylet_of(node)
    for process in [raylet, *children_of(raylet)]:
        os.kill(process, signal.SIGKILL)


def end(cluster: Cluster, node: Node) -> None:
    """As a machine that is shut down, or `ray stop` on it: processes are asked to end."""
    cluster.remove_node(node, allow_graceful=True)


def at_epoch(epoch: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, EpochReported) and (event.trial_id, event.epoch) == ("t0000", epoch)


def raylet_of(node: Node) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def with_slot(nodes: Sequence[Node]) -> Node:
    """The one where a slot runs, as soon as there is one."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(AssertionError, OSError):  # between two slots
            place = parent_of(slot_process())
            if found := [node for node in nodes if raylet_of(node) == place]:
                return found[0]
        time.sleep(0.05)
    raise AssertionError("no slot came back")


@pytest.fixture
def add_nodes(cluster: Cluster) -> Callable[[int], list[Node]]:
    """Nodes that hold a worker each."""

    def add(count: int) -> list[Node]:
        nodes = [cluster.add_node(num_cpus=CPUS) for _ in range(count)]
        cluster.wait_for_nodes()
        return nodes

    return add


@pytest.fixture(autouse=True)
def _nodes_go(cluster: Cluster) -> Any:
    yield
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)


def test_how_actors_ended_is_known(cluster: Cluster, add_nodes: Callable[[int], list[Node]]) -> None:
    """None for one that lives; where it was lost with its node, or ended by us, it did not die by itself."""

    class Idle:
        def process(self) -> int:
            return os.getpid()

    (node,) = add_nodes(1)
    idle: Any = ray.remote(Idle)
    places = [ray.get_runtime_context().get_node_id()] * 3 + [node.node_id]
    pinned = [NodeAffinitySchedulingStrategy(place, soft=False) for place in places]
    actors = [idle.options(num_cpus=0, scheduling_strategy=strategy).remote() for strategy in pinned]
    _, killed, ended, lost = actors
    processes = ray.get([actor.process.remote() for actor in actors], timeout=PATIENCE_S)
    os.kill(processes[actors.index(killed)], signal.SIGKILL)
    ray.kill(ended)
    kill(cluster, node)
    with pytest.raises(ray.exceptions.ActorUnavailableError) as caught:
        ray.get(lost.process.remote(), timeout=PATIENCE_S)
    assert SILENT.findall(str(caught.value)) == [lost._actor_id.hex()]
    deadline = time.monotonic() + PATIENCE_S
    wanted = [None, True, False, False]
    while (found := [died_by_itself(actor._actor_id.hex()) for actor in actors]) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_lost_nodes_are_no_failures_of_a_trial(
    cluster: Cluster,
    add_nodes: Callable[[int], list[Node]],
    configure: Callable[..., SweepConfig],
    home: Home,
    once: Once,
) -> None:
    """Slot and worker lie on the same node."""
    left = add_nodes(3)
    losses = iter([kill, end])

    def lose_it(event: Event) -> None:
        node = with_slot(left)
        left.remove(node)
        next(losses)(cluster, node)

    config = configure(
        [1e-3],
        run={"train": {"epochs": EPOCHS, "batch_size": 2}},
        resources={"cpus_per_worker": CPUS, "max_failures": 1},
    )
    plan = make_plan(config, home, "lasting_training")
    once(plan.folder, at_epoch(FIRST), lose_it)
    once(plan.folder, at_epoch(SECOND), lose_it)
    ledger = searched(plan)
    assert len(left) == 1
    assert reason(ledger.trials["t0000"]) == "completed"
    assert len(ledger.trials["t0000"].retries) == 2
    assert failures_counted(plan.folder) == 0
    assert rows(ledger) == pytest.approx(lasting_rows([1e-3], EPOCHS))
    check_resources(2 + CPUS)


def test_a_trial_on_several_nodes_goes_on_after_one_is_lost(
    cluster: Cluster, add_nodes: Callable[[int], list[Node]], home: Home, once: Once, tmp_path: Path
) -> None:
    """Two processes of one trial on two nodes train together. Each time the node without the slot goes, and the trial
    is, bit for bit, the one after it that nobody disturbs."""
    left = add_nodes(4)
    losses = iter([kill, end])

    def lose_it(event: Event) -> None:
        used = [node for node in left if "TrainWorker" in " ".join(children_of(raylet_of(node)).values())]
        assert len(used) == 2
        node = next(one for one in used if one is not with_slot(used))
        left.remove(node)
        next(losses)(cluster, node)

    source = write_demo_domain(tmp_path / "spores", train=8, val=3, test=2, image_px=64)
    import_dataset(source, domain="spores", out=tmp_path / "data")
    settings = {
        "data": str(tmp_path / "data"),
        "run": {
            "model": {"image_px": 64},
            "train": {"epochs": SECOND + 2, "batch_size": 4, "device": "cpu", "precision": "float32"},
        },
        "space": {"optim.lr": {"choice": [1e-3]}},
        "search": {"trials": 2, "points": [{"optim.lr": 1e-3}] * 2},
        "scheduler": {"kind": "none"},
        "resources": {"workers_per_trial": 2, "cpus_per_worker": CPUS, "max_failures": 0},
    }
    plan = make_plan(parse_sweep_config(settings, [], source="test"), home)
    once(plan.folder, at_epoch(FIRST), lose_it)
    once(plan.folder, at_epoch(SECOND), lose_it)
    ledger = searched(plan)
    assert len(left) == 2
    disturbed, other = ledger.trials["t0000"], ledger.trials["t0001"]
    assert reason(disturbed) == reason(other) == "completed"
    assert reported(disturbed) == reported(other)
    check_resources(2 + 2 * CPUS)


def searched(plan: SweepPlan) -> Ledger:
    """After all its trials, in one slot."""
    ledger = Ledger()
    with closing(EventLog(plan.folder / NAME)) as log:
        search([Part(plan=plan, ledger=ledger, listeners=[log])], folder=plan.folder, slots=1)
    return ledger


def failures_counted(folder: Path) -> int:
    """Of the only trial, by Tune."""
    (state,) = (folder / "tune").glob("experiment_state-*.json")
    ((_, metadata),) = json.loads(state.read_text())["trial_data"]
    return int(json.loads(metadata)["num_failures"])


def reason(trial: TrialRecord) -> str:
    return trial.end.reason if trial.end else "none"
