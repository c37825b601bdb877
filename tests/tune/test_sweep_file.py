"""tune/sweep.py alone, as `ray submit` runs it: copied somewhere, without the repository around it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tune

SWEEP = Path(tune.__file__).parent / "sweep.py"


def run(script: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *arguments], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def submitted(tmp_path: Path) -> Path:
    """The file where `ray submit` puts it: alone in the home of the head node."""
    return Path(shutil.copy(SWEEP, tmp_path / "sweep.py"))


def test_help_needs_nothing(submitted: Path, tmp_path: Path) -> None:
    result = run(submitted, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "key=value" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--config", "file:///nowhere.yaml"], "/nowhere.yaml: no such file"),
        (["--config", "default", "search.trails=3"], "did you mean 'trials'"),
        (["search.trials=3", "--config", "default", "data=missing"], "missing"),
        (["--config", "gopher://host/sweep.yaml"], "cannot be read"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_message(
    submitted: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = run(submitted, *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_run_in_place_its_folder_shadows_nothing(tmp_path: Path) -> None:
    result = run(SWEEP, "--config", "nowhere.yaml", cwd=tmp_path)
    assert (result.returncode, "no such file" in result.stderr) == (2, True)


def test_no_module_here_has_the_name_of_a_library() -> None:
    ours = {path.stem for path in SWEEP.parent.glob("*.py")} - {"__init__"}
    libraries = {"ray", "mlflow", "optuna", "torch", "numpy", "pydantic", "rich", "typer", "yaml", "pyarrow", "peft"}
    assert ours.isdisjoint(libraries | set(sys.stdlib_module_names))


def test_importing_it_does_nothing() -> None:
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("submitted_sweep", SWEEP)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert sys.path == before
