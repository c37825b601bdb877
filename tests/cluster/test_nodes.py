"""`infosam cluster status` against a real Ray cluster on this machine, and against none."""

from __future__ import annotations

import io
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import ray
from rich.console import Console

from cluster.nodes import ClusterReport, NoCluster, NodeReport, look, show_report

GENEROUS_S = 90
"""A slow machine needs long to start a worker; the product's own limit is for people."""

HEAD = """
import sys
import ray
from ray.util.placement_group import placement_group

ray.init(address="local", include_dashboard=False, num_cpus=2, num_gpus=0, log_to_driver=False,
         object_store_memory=100 * 2**20)
ray.get(placement_group([{"CPU": 1}]).ready(), timeout=60)
print("ADDRESS", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def cluster_address() -> Iterator[str]:
    """A local cluster of one node with 2 CPUs of which 1 is taken; it lives in a process of its own."""
    head = subprocess.Popen([sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert head.stdin is not None
    assert head.stdout is not None
    try:
        lines = iter(head.stdout.readline, "")
        yield next(line.split()[1] for line in lines if line.startswith("ADDRESS"))
    finally:
        head.stdin.close()
        head.stdout.close()
        head.wait(timeout=60)


@pytest.fixture(scope="module")
def report(cluster_address: str) -> ClusterReport:
    return look(cluster_address, timeout_s=GENEROUS_S)


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def printed(report: ClusterReport) -> str:
    page = io.StringIO()
    show_report(report, Console(width=200, file=page))
    return page.getvalue()


def test_a_real_cluster_is_described(report: ClusterReport) -> None:
    (node,) = report.nodes
    assert node.alive
    assert node.is_head
    assert node.resources["CPU"] == 2
    assert (node.ray, node.python) == (ray.__version__, platform.python_version())
    assert report.total["CPU"] == 2
    assert report.free["CPU"] == 1
    assert report.total["memory"] > 0
    assert not report.mismatches
    assert not report.silent


def test_the_table_shows_it(report: ClusterReport) -> None:
    text = printed(report)
    assert "head" in text
    assert ray.__version__ in text
    assert "1 of 1 nodes up. Free: CPU 1 of 2, GPU 0 of 0" in text


def test_ray_address_is_the_default(cluster_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster_address)
    assert look(timeout_s=GENEROUS_S).address == cluster_address


def test_a_closed_port_is_refused_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free_port = server.getsockname()[1]
    with pytest.raises(NoCluster, match=r"nothing listens there.*\n.*ray start --head"):
        look(f"127.0.0.1:{free_port}")


def test_a_port_that_never_answers_does_not_hang(silent_port: int) -> None:
    with pytest.raises(NoCluster, match="no answer within 4 s"):
        look(f"127.0.0.1:{silent_port}", timeout_s=4)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "dashboard"),
        ("nonsense", "not HOST:PORT"),
        ("127.0.0.1:99999", "not HOST:PORT"),
        ("ray://127.0.0.1:1", "nothing listens"),
    ],
)
def test_an_unusable_address_is_refused(address: str, message: str) -> None:
    with pytest.raises(NoCluster, match=message):
        look(address)


def test_other_versions_and_silence_are_pointed_out() -> None:
    def node(name: str, ray: str | None, *, alive: bool = True) -> NodeReport:
        python = "3.12.1" if ray else None
        return NodeReport(node_id=name, address=name, alive=alive, resources={"CPU": 4}, ray=ray, python=python)

    report = ClusterReport(
        address="head:6379",
        nodes=(node("same", "2.60.0"), node("older", "2.55.0"), node("mute", None), node("dead", None, alive=False)),
        total={"CPU": 12},
        free={"CPU": 12},
        client_ray="2.60.0",
        client_python="3.12.1",
    )
    assert [each.node_id for each in report.mismatches] == ["older"]
    assert [each.node_id for each in report.silent] == ["mute"]
    text = printed(report)
    assert "older runs Ray 2.55.0" in text
    assert "no answer in time from mute" in text
    assert "3 of 4 nodes up" in text
