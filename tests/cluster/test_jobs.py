"""What `infosam cluster submit | logs | stop` say before they reach a cluster; test_launcher.py has the jobs."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest

from cluster.jobs import NoDashboard, entrypoint, job_client
from infosam.errors import UserError


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


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
