"""The state of a Ray cluster as seen from this machine: nodes, what is free, whether the versions agree.

Never hangs: the questions are asked by a process of their own (`cluster.probe`) that is ended at the deadline.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.access import with_token
from infosam.errors import UserError

GIB = 2**30
CONNECT_TIMEOUT_S = 3.0
HEAD_RESOURCE = "node:__internal_head__"
"""Ray puts this resource on the head node only."""


class NoCluster(UserError):
    """No Ray cluster answers at an address."""


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """One machine of the cluster. Versions are None while it has not answered."""

    node_id: str
    address: str
    alive: bool
    resources: Mapping[str, float]
    ray: str | None = None
    python: str | None = None

    @property
    def is_head(self) -> bool:
        """Whether the cluster's own services run here."""
        return HEAD_RESOURCE in self.resources


@dataclass(frozen=True, kw_only=True)
class ClusterReport:
    """All machines, the resources of the live ones together (memory in bytes), and this client's own versions."""

    address: str
    nodes: tuple[NodeReport, ...]
    total: Mapping[str, float]
    free: Mapping[str, float]
    client_ray: str
    client_python: str

    @property
    def live(self) -> list[NodeReport]:
        """The nodes that are up."""
        return [node for node in self.nodes if node.alive]

    @property
    def mismatches(self) -> list[NodeReport]:
        """Live nodes whose Ray or Python is another one than the client's; tasks sent there may fail to unpickle."""
        mine = (self.client_ray, self.client_python)
        return [node for node in self.live if node.ray is not None and (node.ray, node.python) != mine]

    @property
    def silent(self) -> list[NodeReport]:
        """Live nodes that did not answer in time."""
        return [node for node in self.live if node.ray is None]


def look(address: str | None = None, *, timeout_s: float = 10.0) -> ClusterReport:
    """The cluster at `address`, else at RAY_ADDRESS, else on this machine. Raises NoCluster within `timeout_s`.

    Nodes that have not told their versions by then are reported without them.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    refuse_unusable(address, timeout_s)
    command = [sys.executable, "-m", "cluster.probe", address]
    answers = ask(command, timeout_s, environment=with_token(os.environ, address))
    return _report(address, answers, timeout_s)


def show_report(report: ClusterReport, console: Console | None = None) -> None:
    """Prints a table of the nodes, the totals, and a warning where versions differ."""
    console = console or Console()
    table = Table(title=f"Ray cluster at {report.address}", title_justify="left")
    for column in ("node", "role", "state"):
        table.add_column(column)
    for column in ("CPU", "GPU", "memory GiB"):
        table.add_column(column, justify="right")
    for column in ("Ray", "Python"):
        table.add_column(column)
    for node in report.nodes:
        table.add_row(*_row(node, report))
    console.print(table)
    console.print(_totals(report))
    for node in report.mismatches:
        console.print(
            f"[yellow]warning:[/yellow] {node.address} runs Ray {node.ray} on Python {node.python}, this machine "
            f"Ray {report.client_ray} on Python {report.client_python}: install the same ones everywhere"
        )
    if report.silent:
        names = ", ".join(node.address for node in report.silent)
        console.print(f"[yellow]warning:[/yellow] no answer in time from {names}; try again with a longer --timeout")


def refuse_unusable(address: str, timeout_s: float) -> None:
    """Raises NoCluster for an address nothing listens at; cheaper and clearer than Ray's own minute of retries."""
    if address.startswith(("http://", "https://")):
        raise NoCluster(
            f"{address} is the address of Ray's dashboard; give the head's own: --address HOST:6379, "
            "or ray://HOST:10001 from outside the cluster"
        )
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise NoCluster(f"address {address!r} is not HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=min(CONNECT_TIMEOUT_S, timeout_s)).close()
    except OSError as error:
        raise NoCluster(advice(address, f"nothing listens there ({error})")) from error


def ask(command: Sequence[str], timeout_s: float, *, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """The JSON objects that a program printed until it ended or the deadline passed."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # so that the probe can be ended with everything it started
        env=environment,
    )
    try:
        printed, _ = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        printed, _ = child.communicate()
    finally:
        if child.poll() is None:  # interrupted by the user
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return list(_parse(printed.splitlines()))


def _parse(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        if line.startswith("{"):  # Ray prints lines of its own, too
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off when the probe was ended


def _report(address: str, answers: list[dict[str, Any]], timeout_s: float) -> ClusterReport:
    by_kind = {answer["kind"]: answer for answer in answers}
    if "nodes" not in by_kind:
        said = by_kind.get("error", {}).get("message", f"no answer within {timeout_s:g} s")
        raise NoCluster(advice(address, said))
    versions = {answer["node_id"]: answer for answer in answers if answer["kind"] == "versions"}
    nodes = [
        NodeReport(
            **node,
            ray=versions.get(node["node_id"], {}).get("ray"),
            python=versions.get(node["node_id"], {}).get("python"),
        )
        for node in by_kind["nodes"]["nodes"]
    ]
    return ClusterReport(
        address=address,
        nodes=tuple(sorted(nodes, key=lambda node: (not node.alive, not node.is_head, node.address, node.node_id))),
        total=by_kind["nodes"]["total"],
        free=by_kind["nodes"]["free"],
        client_ray=version("ray"),
        client_python=platform.python_version(),
    )


def advice(address: str, said: str) -> str:
    """Why a cluster cannot be asked, and what may help."""
    where = "on this machine" if address == "auto" else f"at {address}"
    return (
        f"no Ray cluster {where}: {said.strip()}\n"
        "Start one with `ray start --head`, or name one with --address HOST:PORT or RAY_ADDRESS. From a machine that "
        "is not part of the cluster, use ray://HOST:10001 (needs `pip install 'ray[client]'`). A cluster that is "
        "protected by a token answers with RAY_AUTH_MODE=token and its token in RAY_AUTH_TOKEN or ~/.ray/auth_token."
    )


def _row(node: NodeReport, report: ClusterReport) -> list[str]:
    return [
        node.address,
        "head" if node.is_head else "worker",
        "[green]up[/green]" if node.alive else "[red]gone[/red]",
        f"{node.resources.get('CPU', 0):g}",
        f"{node.resources.get('GPU', 0):g}",
        f"{node.resources.get('memory', 0) / GIB:.1f}",
        _compared(node.ray, report.client_ray),
        _compared(node.python, report.client_python),
    ]


def _compared(theirs: str | None, mine: str) -> str:
    if theirs is None:
        return "?"
    return theirs if theirs == mine else f"[red]{theirs}[/red]"


def _totals(report: ClusterReport) -> str:
    def part(name: str, unit: float = 1, form: str = "g") -> str:
        free, total = report.free.get(name, 0) / unit, report.total.get(name, 0) / unit
        return f"{free:{form}} of {total:{form}}"

    return (
        f"{len(report.live)} of {len(report.nodes)} nodes up. Free: CPU {part('CPU')}, GPU {part('GPU')}, "
        f"memory {part('memory', GIB, '.1f')} GiB."
    )
