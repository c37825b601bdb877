"""`infosam cluster doctor`: asks a cluster all that a sweep will need, and says how to mend what is wrong."""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.access import with_token
from cluster.checks import CHECKS, Facts, NodeFacts, Problem
from cluster.nodes import HEAD_RESOURCE, NoCluster, advice, ask, refuse_unusable
from infosam.data.card import CARD_NAME
from infosam.sam.architectures import architecture
from tune.config import ResourceConfig, SweepConfig

EXPERIMENT = "infosam-doctor"


def gather(address: str, config: SweepConfig | None, *, timeout_s: float, name: str | None = None) -> Facts:
    """What the nodes of the cluster at `address` answer within `timeout_s`. Raises NoCluster.

    Args:
        config: the sweep whose folder, weights, tracking server and GPUs are looked for; None: only what every sweep
            needs.
        name: of the cluster, for its token."""
    refuse_unusable(address, timeout_s)
    question = {"address": address, **_wishes(config)}
    command = [sys.executable, "-m", "cluster.examine", json.dumps(question)]
    answers = ask(command, timeout_s, environment=with_token(os.environ, address, name=name))
    kinds = {answer["kind"]: answer for answer in answers}
    if "nodes" not in kinds:
        said = kinds.get("error", {}).get("message", f"no answer within {timeout_s:g} s")
        raise NoCluster(advice(address, said))
    told = {answer["node_id"]: answer for answer in answers if answer["kind"] in ("node", "silent")}
    model = config.run.model if config else None
    tracking = kinds.get("tracking", {"uri": question["tracking"], "tracking_error": "the head did not answer in time"})
    return Facts(
        nodes=[_node(node, told.get(node["NodeID"], {}), timeout_s) for node in kinds["nodes"]["nodes"]],
        client_ray=version("ray"),
        client_python=platform.python_version(),
        client_infosam=version("infosam"),
        storage=question["storage"],
        storage_is_shared=question["shared"],
        weights_path=question["weights"],
        weights_sha256=architecture(model.name, model.image_px).sha256 if model and model.checkpoint else None,
        gpus_wanted=config.resources.gpus_per_worker if config else 0.0,
        tracking_uri=tracking["uri"],
        tracking_error=tracking["tracking_error"],
    )


def _wishes(config: SweepConfig | None) -> dict[str, Any]:
    token = secrets.token_hex(8)
    storage = config.storage if config and config.storage else os.environ.get("INFOSAM_HOME")
    checkpoint = config.run.model.checkpoint if config else None
    resources = config.resources if config else ResourceConfig()
    return {
        "storage": None if storage is None else str(storage),
        "shared": resources.mirror is None,  # a bucket takes the place of a shared folder
        "mirror": resources.mirror,
        "fetch": {str(Path(path).absolute()): address for path, address in resources.fetch.items()}
        if resources
        else {},
        "card": CARD_NAME,
        "weights": None if checkpoint is None else str(checkpoint.absolute()),
        "tracking": config.tracking.uri if config else None,
        "experiment": EXPERIMENT,
        "token": token,
        "mark": f".infosam-doctor-{token}",
    }


def _node(node: Mapping[str, Any], answer: Mapping[str, Any], timeout_s: float) -> NodeFacts:
    known = {"address": node["NodeManagerAddress"], "is_head": HEAD_RESOURCE in node["Resources"]}
    gpus = node["Resources"].get("GPU", 0.0)
    if answer.get("kind") != "node":
        return NodeFacts(**known, gpus=gpus, silence=answer.get("message", f"nothing within {timeout_s:g} s"))
    same = ("python", "cuda", "torch_gpus", "driver", "driver_error", "auth_mode", "shm_bytes", "sees_mark",
            "storage_error", "bucket_errors", "grows", "weights", "weights_error")  # fmt: skip
    return NodeFacts(
        **known,
        gpus=gpus,
        **{key: answer[key] for key in same if key in answer},
        **answer["versions"],
        clock_error_s=answer["time"] - answer["received"],
    )


def show(found: Mapping[str, Sequence[Problem]], facts: Facts, console: Console) -> None:
    """Prints a line per check, then each problem with its cure."""
    table = Table(title=f"{len(facts.nodes)} nodes, {len(CHECKS)} checks", title_justify="left", show_header=False)
    for name, problems in found.items():
        table.add_row(name, f"[red]{len(problems)} to mend[/]" if problems else "[green]good[/]")
    console.print(table)
    if facts.workers_are_to_come:
        console.print("Workers come with the trials; examine them while some are up.", highlight=False)
    for name, problems in found.items():
        for problem in problems:
            where, what = escape(problem.where), escape(problem.what)
            console.print(f"[red]{name}[/] {where}: {what}", soft_wrap=True, highlight=False)
            console.print(f"    -> {escape(problem.cure)}", soft_wrap=True, highlight=False, style="dim")
