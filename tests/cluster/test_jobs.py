"""`infosam cluster submit | logs | stop` against a real Ray with dashboard and token authentication."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cluster.access import make_token
from cluster.jobs import NoDashboard, entrypoint, job_client
from infosam.data.store import import_dataset
from infosam.errors import UserError
from infosam.synthetic.domains import write_demo_domain

PATIENCE_S = 600
"""A job starts a chain of cold processes; on a busy machine that takes minutes."""

HEAD = """
import sys
import ray

ray.init(address="local", include_dashboard=True, dashboard_port=int(sys.argv[1]), num_cpus=2, num_gpus=0,
         log_to_driver=False, object_store_memory=100 * 2**20)
print("READY", flush=True)
sys.stdin.read()
ray.shutdown()
"""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster called `lab`, and the environment of a user who may use it."""

    dashboard: str
    environment: Mapping[str, str]
    home: Path

    def call(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """`infosam cluster ...` as the user types it."""
        command = [sys.executable, "-m", "infosam", "cluster", *arguments, "--dashboard", self.dashboard]
        return subprocess.run(
            command,
            env={**self.environment, **changes},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node whose dashboard wants a token; `infosam cluster init` would have made it."""
    pytest.importorskip("aiohttp_cors", reason="needs ray[default], of infosam[cluster]")
    person = tmp_path_factory.mktemp("person")
    home = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(person))
        token = make_token("lab")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    plain |= {
        "HOME": str(person),
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "INFOSAM_HOME": str(home),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    port = free_port()
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**plain, **secret},
    )
    assert head.stdin is not None
    assert head.stdout is not None
    try:
        assert any(line.startswith("READY") for line in iter(head.stdout.readline, ""))
        yield Cluster(dashboard=f"http://127.0.0.1:{port}", environment=plain, home=home)
    finally:
        head.stdin.close()
        head.stdout.close()
        head.wait(timeout=90)


def finished(lab: Cluster, job: str) -> str:
    """What `logs` prints when the job has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        told = lab.call("logs", job, "--cluster", "lab")
        assert told.returncode == 0, told.stderr
        if told.stdout.rstrip().endswith(("SUCCEEDED", "FAILED", "STOPPED")):
            return told.stdout
        time.sleep(2)
    raise AssertionError("the job did not end")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_runs_as_a_job_and_the_same_job_again_goes_on(lab: Cluster, tmp_path: Path) -> None:
    source = tmp_path / "images"
    write_demo_domain(source, seed=0, train=4, val=2, test=2)
    import_dataset(source, domain="spores", out=tmp_path / "data", seed=0)
    sweep = tmp_path / "spores.yaml"
    settings = {
        "data": str(tmp_path / "data"),
        "run": {"model": {"image_px": 64}, "train": {"epochs": 1, "batch_size": 2}},
        "space": {"peft.rank": {"choice": [2, 4]}},
        "scheduler": {"kind": "none"},
        "search": {"trials": 2, "points": []},
        "warm_start": "off",
        "resources": {"slots": 1, "stores": {"build": False}},
    }
    sweep.write_text(yaml.safe_dump(settings))

    refused = lab.call("submit", str(sweep), "spores-1")
    assert refused.returncode == 2, refused.stdout
    assert "--cluster NAME" in refused.stderr + refused.stdout

    jobs = []
    for _ in range(2):
        sent = lab.call("submit", str(sweep), "spores-1", "--cluster", "lab")
        assert sent.returncode == 0, sent.stderr
        jobs.append(sent.stdout.split(":")[0])
        told = finished(lab, jobs[-1])
        assert told.rstrip().endswith("SUCCEEDED"), told
    assert "is over: nothing to do" in told
    assert [path.name for path in (lab.home / "sweeps").iterdir()] == ["spores-1"]
    over = lab.call("stop", jobs[0], "--cluster", "lab")
    assert "was over already" in over.stdout, over.stderr


def test_settings_reach_the_head_as_they_were_typed() -> None:
    line = entrypoint("sweep.yaml", name="a", settings=["space.optim.lr={log_uniform: [1e-4, 1e-2]}", "x=$(rm)"])
    assert shlex.split(line)[-2:] == ["space.optim.lr={log_uniform: [1e-4, 1e-2]}", "x=$(rm)"]
    assert shlex.split(line)[:7] == ["python", "-m", "tune.sweep", "--config", "sweep.yaml", "--once", "a"]


@pytest.mark.parametrize(
    ("address", "words"), [("127.0.0.1:8265", "must be http://HOST:PORT"), (None, "Open a tunnel first")]
)
def test_without_a_dashboard_it_says_how_to_reach_one(address: str | None, words: str) -> None:
    given = address or f"http://127.0.0.1:{free_port()}"
    with pytest.raises(NoDashboard, match=words), job_client(given, None):
        pass


def test_a_cluster_without_token_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match="no token for cluster 'other'"), job_client(address, "other"):
            pass
