from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_sweeps import make_sweep
from mlflow import MlflowClient

from infosam.cli import main
from tune.home import Home
from tune.sync import sync_sweep


def call(*arguments: str) -> object:
    """The exit code."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code


def test_the_page_is_kept_with_the_run_of_the_sweep(home: Home, store: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_sweep(home.sweeps / "polyp", trials=2, test=False)
    assert call("report", "polyp") == 0
    assert "has no run of polyp; infosam sync polyp brings it there" in " ".join(capsys.readouterr().out.split())
    sync_sweep(folder, home)
    assert call("report", "polyp") == 0
    assert "Not kept" not in capsys.readouterr().out
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("infosam")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.sweep_id = 'polyp'")
    (parent,) = [run for run in runs if "trial_id" not in run.data.tags]
    assert "report.html" in [file.path for file in client.list_artifacts(parent.info.run_id)]


def test_several_sweeps_on_one_page(home: Home, tmp_path: Path) -> None:
    for name in ("polyp", "road"):
        make_sweep(home.sweeps / name, trials=1)
    assert call("report", "--compare", "polyp", "road", "--out", str(tmp_path / "both.html")) == 0
    assert "2 sweeps side by side" in (tmp_path / "both.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["polyp", "--compare"], "needs at least two, got 1"),
        (["polyp", "--out", "x.html"], "--out names the page of --compare"),
        (["road"], "road: no such sweep in"),
    ],
)
def test_what_cannot_be_reported_is_refused(
    home: Home, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    make_sweep(home.sweeps / "polyp", trials=1)
    assert call("report", *arguments) == 2
    assert told in re.sub(r"[│\s]+", " ", capsys.readouterr().err)
