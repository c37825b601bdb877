"""Nodes that come for a sweep and go after it, with Ray's own fake of a cloud: its nodes are real Ray nodes of one
machine. The wheel lacks the configuration that Ray's tests start it with; AUTOSCALER is ours. Version 2 of the
autoscaler reads the missing file itself and cannot be started, so version 1 makes the nodes here. `ray up` and our
manifests run version 2, and the demand is looked for in what that one reads as well."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from machines import RAY_PORT, Machine, Network, start_ray
from sweep_check import lasting_rows, rows

from tune.event_log import NAME
from tune.ledger import Ledger

ROOT = Path(__file__).parents[2]
DRIVER = ROOT / "tests" / "faults" / "driver.py"
RATES = [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3]
MOST_NODES = 4
PATIENCE_S = 300
AUTOSCALER: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": MOST_NODES,
    "upscaling_speed": 100,
    "idle_timeout_minutes": 0.1,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,  # all nodes have the same address
        "disable_node_updaters": True,  # there is nobody to reach over ssh
        "disable_launch_config_check": True,
        "launch_multiple": True,
    },
    "head_node_type": "ray.head.default",  # as the provider calls it
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 80 * 2**20},
            "node_config": {},
            "min_workers": 0,
            "max_workers": MOST_NODES,
        },
    },
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    **{
        key: []
        for key in (
            "cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands",
            "head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
        )
    },
    "file_mounts_sync_continuously": False,
}  # fmt: skip
# Prints how many workers are up, and how many groups of processors are waited for: as the autoscaler says, and in the
# state of the cluster that version 2 decides by.
WATCH = """
import json, sys, time
import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.experimental.internal_kv import _internal_kv_get
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
while True:
    told = json.loads(_internal_kv_get("__autoscaling_status") or "{}")
    groups = told.get("load_metrics_report", {}).get("pg_demand", [])
    up = sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())
    demand = get_cluster_status(sys.argv[1]).resource_demands.placement_group_demand
    waiting = {"waiting": sum(count for _, count in groups), "waiting_2": len(demand)}
    print(json.dumps({"workers": up, **waiting}), flush=True)
    time.sleep(0.3)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Watch:
    """What was seen of a cluster, from its head."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.seen: list[dict[str, int]] = []

    def until(self, wanted: Callable[[dict[str, int]], bool]) -> None:
        """Reads on until something wanted is seen."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        for line in self._process.stdout:
            if line.startswith("{"):
                self.seen.append(json.loads(line))
                if wanted(self.seen[-1]):
                    return
            assert time.monotonic() < deadline, self.seen[-5:]
        raise AssertionError(f"the watch ended: {self.seen[-5:]}")


@pytest.fixture(scope="module")
def environment(plain: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of all that runs on the cluster; its workers can import the tests' trainings."""
    home = tmp_path_factory.mktemp("results")
    # No trial goes on before all nodes are there: the first of them could do all the work by then.
    gate = {"LASTING_GATE": str(home / "all-nodes-are-there"), "LASTING_GATED_FROM": "0"}
    return {**plain, **gate, "INFOSAM_HOME": str(home), "RAY_AUTH_MODE": "disabled", "RAY_LOG_TO_DRIVER": "0"}


@pytest.fixture
def head(net: Network, environment: Mapping[str, str], tmp_path: Path) -> Machine:
    """A head without processors, and a cloud that has nodes of one processor."""
    machine = net.machine("head")
    file = tmp_path / "autoscaler.json"
    provider = {**AUTOSCALER["provider"], "gcs_address": f"{machine.address}:{RAY_PORT}"}
    file.write_text(json.dumps({**AUTOSCALER, "provider": provider}))
    settings = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "0"}
    options = ["--num-cpus=0", f"--autoscaling-config={file}"]
    start_ray(machine, *options, environment={**environment, **settings})
    return machine


@pytest.fixture
def watch(head: Machine, environment: Mapping[str, str]) -> Iterator[Watch]:
    command = [sys.executable, "-c", WATCH, f"{head.address}:{RAY_PORT}"]
    with head.start(*command, environment=environment, stdout=subprocess.PIPE, text=True) as process:
        yield Watch(process)
        process.kill()


def test_nodes_come_for_a_sweep_and_go_after_it(
    head: Machine, watch: Watch, environment: Mapping[str, str], square: Path, tmp_path: Path
) -> None:
    """The autoscaler is told of all four slots before the first node is there."""
    config = tmp_path / "sweep.yaml"
    settings = {
        "data": str(square),
        "run": {"train": {"epochs": 4, "batch_size": 2}},
        "space": {"optim.lr": {"choice": RATES}},
        "search": {"trials": len(RATES), "points": [{"optim.lr": rate} for rate in RATES]},
        "scheduler": {"kind": "none"},
        "warm_start": "off",
        "resources": {"slots": MOST_NODES, "stores": {"build": False}},
    }
    config.write_text(yaml.safe_dump(settings))
    watch.until(lambda now: now["workers"] == 0)
    grows = {**environment, "INFOSAM_CLUSTER_GROWS": "1", "RAY_ADDRESS": f"{head.address}:{RAY_PORT}"}
    driver = head.start(
        sys.executable, str(DRIVER), "lasting_training", "sweep", str(config),
        environment=grows, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with driver, contextlib.ExitStack() as stack:
        stack.callback(driver.kill)
        watch.until(lambda now: now["waiting"] == now["waiting_2"] == MOST_NODES and now["workers"] == 0)
        watch.until(lambda now: now["workers"] == MOST_NODES)
        Path(environment["LASTING_GATE"]).touch()
        told, _ = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode == 0, told
    watch.until(lambda now: now["workers"] == 0)
    ledger = Ledger.replay(Path(environment["INFOSAM_HOME"]) / "sweeps" / "square" / NAME)
    assert rows(ledger) == pytest.approx(lasting_rows(RATES))
    assert all(trial.end and trial.end.reason == "completed" for trial in ledger.trials.values())
