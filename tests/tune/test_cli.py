"""The commands, as typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from infosam.errors import UserError
from tune.cli import make_demo_data, register, shipped, ui_arguments, wide_console
from tune.home import Home


@pytest.fixture
def app() -> typer.Typer:
    root = typer.Typer()
    register(root)
    return root


def call(app: typer.Typer, *arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


def refused(result: Any) -> str:
    assert isinstance(result.exception, UserError)
    return str(result.exception)


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = "import sys, tune.cli; print({'torch', 'ray', 'optuna', 'mlflow', 'pandas'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "set()"


def test_help_names_every_command(app: typer.Typer) -> None:
    text = call(app, "--help").output
    assert all(name in text for name in ("sweep", "demo", "ui", "champions"))
    assert "space.optim.lr" in call(app, "sweep", "--help").output


def test_a_missing_sweep_file_is_refused(app: typer.Typer) -> None:
    assert "nowhere.yaml: no such file" in refused(call(app, "sweep", "nowhere.yaml"))


def test_a_bad_setting_is_refused_by_name(app: typer.Typer) -> None:
    assert "did you mean 'trials'" in refused(call(app, "sweep", "default", "search.trails=3"))


def test_data_that_is_not_there_is_refused(app: typer.Typer, tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refused(call(app, "sweep", "default", f"data={tmp_path / 'none'}"))


def test_no_champions_is_not_an_error(app: typer.Typer) -> None:
    result = call(app, "champions", "list")
    assert result.exit_code == 0
    assert "No domain has a champion yet" in result.output


def test_the_browser_needs_results_first(app: typer.Typer, home: Home) -> None:
    assert str(home.database) in refused(call(app, "ui"))


def test_the_server_listens_on_this_machine_only(home: Home) -> None:
    arguments = ui_arguments(home, 5001)
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--port") + 1] == "5001"


def test_demo_data_is_made_once(home: Home) -> None:
    folder = make_demo_data(home, wide_console())
    card = (folder / "dataset.json").read_text()
    assert make_demo_data(home, wide_console()) == folder
    assert (folder / "dataset.json").read_text() == card


def test_shipped_files_are_found() -> None:
    assert all(shipped(name).is_file() for name in ("default", "demo"))
