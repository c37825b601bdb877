"""`infosam sweep init`, as typed and answered, and `infosam sweep` beside it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from infosam.errors import ConfigError, UserError
from tune.cli import register, shipped
from tune.config import load_sweep_config, load_sweep_configs
from tune.sweep_init import filled


def call(*arguments: str, answers: str | None = None) -> Any:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["sweep", *arguments], input=answers)


def test_questions_make_a_commented_file(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "my.yaml"
    result = call("init", str(out), answers=f"{dataset}\n\n5\n32\n1.5\n0\n")
    assert result.exit_code == 0, result.output
    config = load_sweep_config(out)
    assert (config.data, config.search.trials, config.run.train.epochs) == (dataset, 32, 5)
    assert (config.run.model.name, config.budget.hours, config.resources.gpus_per_worker) == ("vit_nano", 1.5, 0)
    comments = re.findall(r"#.*", shipped("default").read_text())
    assert re.findall(r"#.*", out.read_text()) == comments


def test_options_are_not_asked_for(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "my.yaml"
    options = [
        "--data",
        str(dataset),
        "--model",
        "vit_b",
        "--checkpoint",
        "sam_b.pth",
        "--epochs",
        "1",
        "--gpus",
        "0.5",
    ]
    assert call("init", str(out), *options, "--yes").exit_code == 0
    config = load_sweep_config(out)
    assert (config.run.model.name, config.run.model.checkpoint) == ("vit_b", Path("sam_b.pth"))
    assert (config.run.train.epochs, config.resources.gpus_per_worker, config.search.trials) == (1, 0.5, 16)
    again = call("init", str(out), *options, "--yes")
    assert isinstance(again.exception, UserError)
    assert "is there already" in str(again.exception)
    assert call("init", str(out), *options, "--yes", "--overwrite").exit_code == 0


@pytest.mark.parametrize("how", ["options", "answers"])
def test_several_folders_make_one_file(dataset: Path, tmp_path: Path, how: str) -> None:
    out, ring = tmp_path / "my.yaml", tmp_path / "ring"
    shutil.copytree(dataset, ring)
    if how == "options":
        result = call("init", str(out), "--data", str(dataset), "--data", str(ring), "--yes")
    else:
        result = call("init", str(out), answers=f"{dataset}, {ring}\n\n\n\n\n\n")
    assert result.exit_code == 0, result.output
    assert [config.data for config in load_sweep_configs(out)] == [dataset, ring]
    assert "disc" in result.output


@pytest.mark.parametrize(
    ("options", "words"), [(["--data", "nowhere"], "nowhere"), (["--model", "vit_x"], "run.model.name")]
)
def test_bad_answers_are_refused_and_nothing_is_written(
    dataset: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    given = options if "--data" in options else [*options, "--data", str(dataset)]
    result = call("init", str(tmp_path / "my.yaml"), *given, "--yes")
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception)
    assert not (tmp_path / "my.yaml").exists()


def test_filling_in_changes_values_only() -> None:
    text = "a: 1     # one\nb:\n  a: x\n  # c: 3\n  c: {d: 2}  # two\nc: null\n"
    assert filled(text, {"b.a": "y z", "a": None, "c": 2.5}) == (
        "a: null  # one\nb:\n  a: y z\n  # c: 3\n  c: {d: 2}  # two\nc: 2.5\n"
    )
    assert yaml.safe_load(filled(text, {"a": "no"}))["a"] == "no"
    with pytest.raises(ConfigError, match=r"no line for b\.d"):
        filled(text, {"b.d": 1})


def test_a_sweep_needs_no_subcommand() -> None:
    bare, named = call("nowhere.yaml"), call("run", "nowhere.yaml")
    assert (
        str(bare.exception)
        == str(named.exception)
        == "nowhere.yaml: no such file; give the path of a YAML configuration"
    )
    assert "--dry-run" in call("run", "--help").output
    assert "init" in call("--help").output
