from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from infosam import cli
from infosam.data.commands import register
from infosam.data.store import open_dataset
from infosam.errors import DataError


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_import_writes_the_set_and_shows_its_counts(app: typer.Typer, csv_set: Path, tmp_path: Path) -> None:
    arguments = ["data", "import", str(csv_set), "--domain", "squares", "--out", str(tmp_path / "set")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert open_dataset(tmp_path / "set").card.domain == "squares"
    for expected in ("Domain squares", "train │     4", "Written to"):
        assert expected in result.stdout
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0
    assert "Already imported" in again.stdout


def test_drawn_splits_are_announced(app: typer.Typer, folder_set: Path, tmp_path: Path) -> None:
    arguments = ["data", "import", str(folder_set), "--domain", "d", "--out", str(tmp_path / "set"), "--seed", "9"]
    result = CliRunner().invoke(app, arguments)
    assert "note: no val split given: 3 of 20" in result.stderr
    assert "seed 9" in result.stderr


def test_bad_data_is_refused_with_one_message_and_exit_code_2(
    csv_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (csv_set / "masks" / "val_0.png").unlink()
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "import", str(csv_set), "--domain", "squares", "--out", str(tmp_path / "set")])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert "val.csv:2" in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert not (tmp_path / "set").exists()


def test_switches_reach_the_import(app: typer.Typer, csv_set: Path, folder_set: Path, tmp_path: Path) -> None:
    out = ["--domain", "d", "--out", str(tmp_path / "set")]
    runner = CliRunner()
    assert runner.invoke(app, ["data", "import", str(csv_set), *out]).exit_code == 0
    assert isinstance(runner.invoke(app, ["data", "import", str(folder_set), *out]).exception, DataError)
    assert runner.invoke(app, ["data", "import", str(folder_set), *out, "--overwrite"]).exit_code == 0
    assert open_dataset(tmp_path / "set").rows("train") == 14


def test_help_teaches_the_layouts(app: typer.Typer) -> None:
    output = CliRunner().invoke(app, ["data", "import", "--help"]).output
    for word in ("train.csv", "images/", "--allow-empty", "Example"):
        assert word in output
