"""Asks one Ray cluster about its nodes and prints the answers, a JSON object a line. Run as `python -m cluster.probe`.

It is a program of its own because a driver that joins a cluster can block for minutes inside Ray (a head that is gone
but whose port still listens), and a process can be ended from outside while a call cannot. Lines come as soon as they
are known, so whoever reads them keeps what arrived before the end.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any


def probe(address: str) -> None:
    """Prints a "nodes" line, then a "versions" line per live node as it answers; or one "error" line."""
    import ray  # here, so that importing this module costs and does nothing

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ImportError) as error:  # what Ray raises for a bad address
        _print({"kind": "error", "message": str(error)})
        return
    nodes = ray.nodes()
    _print(
        {
            "kind": "nodes",
            "total": ray.cluster_resources(),
            "free": ray.available_resources(),
            "nodes": [
                {
                    "node_id": node["NodeID"],
                    "address": node["NodeManagerAddress"],
                    "alive": node["Alive"],
                    "resources": node["Resources"],
                }
                for node in nodes
            ],
        }
    )
    _print_versions([node["NodeID"] for node in nodes if node["Alive"]])
    ray.shutdown()


def _print_versions(node_ids: list[str]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    @ray.remote(num_cpus=0, max_retries=0)
    def versions() -> dict[str, str]:
        import platform

        import ray

        return {"ray": ray.__version__, "python": platform.python_version()}

    pending = {
        versions.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote(): node_id
        for node_id in node_ids
    }
    while pending:
        for answer in ray.wait(list(pending), num_returns=1)[0]:
            node_id = pending.pop(answer)
            try:
                _print({"kind": "versions", "node_id": node_id, **ray.get(answer)})
            except ray.exceptions.RayError as error:  # the node left, or cannot start a worker
                _print({"kind": "silent", "node_id": node_id, "message": str(error).splitlines()[0]})


def _print(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    probe(sys.argv[1])
