"""What an installation promises: three packages and one command that work from any folder, with bounded versions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import infosam

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = [
    line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
]
COMMAND = Path(sys.executable).with_name("infosam")
REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(each for extra in PROJECT["optional-dependencies"].values() for each in extra),
]
NAME = re.compile(r"[A-Za-z0-9._-]+")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=False)


def test_packages_import_from_any_folder(tmp_path: Path) -> None:
    done = run(sys.executable, "-c", "import infosam, tune, cluster", folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [[COMMAND], [sys.executable, "-m", "infosam"]], ids=["script", "module"])
def test_help_works_from_any_folder_and_names_every_room(command: list[str | Path], tmp_path: Path) -> None:
    done = run(*command, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    for name in ("data", "sweep", "predict", "ui", "demo", "cluster"):
        assert re.search(rf"\b{name}\b", done.stdout), name


def test_a_wheel_holds_code_weights_and_sweeps_and_no_tests(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building writes beside the sources
    for name in ("infosam", "tune", "cluster"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    expected = {str(path.relative_to(source)) for path in source.glob("*/**/*") if path.is_file()}
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = run(*pip, "--wheel-dir", tmp_path, source, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = {Path(name).name for name in archive.namelist() if "/licenses/" in name}
    assert packed == expected
    assert licences == {"LICENSE", "NOTICE"}


def test_version_is_the_installed_one(tmp_path: Path) -> None:
    assert infosam.__version__ == PROJECT["version"]
    assert run(COMMAND, "--version", folder=tmp_path).stdout.startswith(f"infosam {PROJECT['version']} ")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """A command line that takes seconds to answer --help is one that people stop asking."""
    program = (
        "import sys\nfrom infosam.cli import build_app\nproblems = build_app()[1]\nassert not problems, problems\n"
        "print(*sorted({'torch', 'ray', 'mlflow', 'optuna', 'peft', 'pyarrow'} & set(sys.modules)))"
    )
    done = run(sys.executable, "-c", program, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_every_entry_point_loads() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    for group, points in groups.items():
        installed = {point.name: point for point in entry_points(group=group)}
        for name, target in points.items():
            assert installed[name].value == target, "pyproject.toml changed: install again"
            assert callable(installed[name].load())


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_every_dependency_is_bounded_on_both_sides(requirement: str) -> None:
    assert "==" in requirement or (">=" in requirement and "<" in requirement)


def test_constraints_are_exact_and_name_no_index() -> None:
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!_-]+", line), line  # so no @ address, option or local build


def test_constraints_cover_every_dependency_and_nothing_of_ours() -> None:
    pinned = {canonical(line.partition("==")[0]) for line in CONSTRAINTS}
    needed = {canonical(found.group()) for each in REQUIREMENTS if (found := NAME.match(each))}
    assert needed <= pinned
    assert "infosam" not in pinned


def test_licence_is_apache() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_readme_names_the_commands_that_exist() -> None:
    """The first thing a reader copies has to work: every make target and every command of the README exists."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", readme)) <= targets
    help_page = run(COMMAND, "--help", folder=ROOT).stdout
    for command in set(re.findall(r"^(?:\$ )?infosam ([a-z]+)", readme, flags=re.MULTILINE)):
        assert re.search(rf"\b{command}\b", help_page), command


def test_readme_pictures_and_links_exist() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        prose = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)", prose):
            if "://" not in target:
                assert (ROOT / target).exists(), f"{page}: {target}"
