"""Stores that cannot hold a sweep are refused with advice, before any trial."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from infosam.errors import UserError
from tune.config import SweepConfig
from tune.home import Home
from tune.runner import run_sweep
from tune.stores import check_store


@pytest.mark.parametrize("uri", ["file:///data/mlruns", "file:mlruns", "mlruns", "/data/mlruns", "./mlruns"])
def test_a_folder_is_refused_with_advice(uri: str) -> None:
    with pytest.raises(UserError, match=r"is a folder.*leave the setting out.*PostgreSQL \(docs/tracking\.md"):
        check_store(uri)


@pytest.mark.parametrize("uri", ["sqlite:////data/mlflow.db", "sqlite:///mlflow.db", "sqlite+pysqlite:///mlflow.db"])
def test_a_database_file_is_for_one_machine(uri: str) -> None:
    check_store(uri)
    with pytest.raises(UserError, match=r"the Ray cluster has 3 nodes.*PostgreSQL \(docs/tracking\.md"):
        check_store(uri, nodes=3)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:5000", "https://mlflow.example.org", "postgresql+psycopg2:///mlflow"]
)
def test_servers_hold_sweeps_of_any_size(uri: str) -> None:
    check_store(uri, nodes=100)


def test_a_sweep_into_a_folder_is_refused_before_it_begins(
    home: Home, sweep_config: SweepConfig, console: Console, tmp_path: Path, ray_cluster: None
) -> None:
    tracking = sweep_config.tracking.model_copy(update={"uri": (tmp_path / "mlruns").as_uri()})
    config = sweep_config.model_copy(update={"tracking": tracking})
    with pytest.raises(UserError, match=r"tracking\.uri"):
        run_sweep(config, home=home, console=console, training="tune.noop")
    assert not list(home.sweeps.glob("*"))
    assert not (tmp_path / "mlruns").exists()


def test_a_second_node_refuses_the_embedded_database(
    home: Home, sweep_config: SweepConfig, console: Console, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    monkeypatch.setattr("tune.preflight.cluster_nodes", lambda: [{"CPU": 2.0}, {"CPU": 2.0}])
    with pytest.raises(UserError, match=r"has 2 nodes.*server over PostgreSQL"):
        run_sweep(sweep_config, home=home, console=console, training="tune.noop")
    assert not list(home.sweeps.glob("*"))
