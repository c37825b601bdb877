"""What `infosam cluster submit | logs | stop` say before they reach a cluster; test_launcher.py has the jobs."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from cluster.jobs import NoDashboard, entrypoint, job_client, submit
from infosam.errors import UserError


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_settings_reach_the_head_as_they_were_typed() -> None:
    line = entrypoint("sweep.yaml", name="a", settings=["space.optim.lr={log_uniform: [1e-4, 1e-2]}", "x=$(rm)"])
    assert shlex.split(line)[-2:] == ["space.optim.lr={log_uniform: [1e-4, 1e-2]}", "x=$(rm)"]
    assert shlex.split(line)[:7] == ["python", "-m", "tune.sweep", "--config", "sweep.yaml", "--once", "a"]


class Head:
    """Takes jobs and keeps what was sent with them."""

    def __init__(self) -> None:
        self.sent: dict[str, str] = {}

    def submit_job(self, *, runtime_env: dict[str, str], **_: object) -> str:
        self.sent = {path.name: path.read_text() for path in Path(runtime_env["working_dir"]).iterdir()}
        return "job"


def test_a_file_of_the_folder_is_not_replaced_by_the_config(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "sweep.yaml").write_text("mine")
    (tmp_path / "polyp.yaml").write_text("polyp")
    head: Any = Head()
    with pytest.raises(UserError, match=r"sweep\.yaml there is another file than .*polyp\.yaml"):
        submit(head, str(tmp_path / "polyp.yaml"), name="a", settings=[], folder=folder)
    assert not head.sent
    submit(head, str(folder / "sweep.yaml"), name="a", settings=[], folder=folder)
    assert head.sent == {"sweep.yaml": "mine"}
    (folder / "sweep.yaml").rename(folder / "other.yaml")
    submit(head, str(tmp_path / "polyp.yaml"), name="a", settings=[], folder=folder)
    assert head.sent == {"sweep.yaml": "polyp", "other.yaml": "mine"}


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
