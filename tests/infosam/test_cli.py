"""The root of the command line: exit codes, messages, and extensions that do not work."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from infosam.cli import build_app
from infosam.errors import printable

Run = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = """
import os, signal
from infosam.errors import DataError

def register(app):
    @app.command("refuse")
    def refuse(many: bool = False):
        raise DataError("train.csv:12: mask [/red] is missing" + "\\n  and more" * many)

    @app.command("crash")
    def crash():
        raise RuntimeError("the disk is gone")

    @app.command("interrupt")
    def interrupt():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with SIGINT ignored
        os.kill(os.getpid(), signal.SIGINT)

    @app.command("fine")
    def fine():
        print("done")
"""


def install(folder: Path, **modules: str) -> None:
    """A real distribution in `folder`: one module each, announced as a command under its own name."""
    metadata = folder / "extension-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: extension\nVersion: 1.0\n", encoding="utf-8")
    points = "\n".join(f"{name} = {name}:register" for name in modules)
    (metadata / "entry_points.txt").write_text(f"[infosam.commands]\n{points}\n", encoding="utf-8")
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command line in a process of its own, with the distribution of `install(tmp_path)` beside it."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "infosam", *arguments],
            env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200", **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def commands(tmp_path: Path) -> None:
    install(tmp_path, extra_commands=COMMANDS)


@pytest.mark.usefixtures("commands")
class TestExitCodes:
    def test_success_is_0(self, run: Run) -> None:
        done = run("fine")
        assert (done.returncode, done.stdout) == (0, "done\n")

    @pytest.mark.parametrize("options", [(), ("-v",)])
    def test_refused_input_is_2_with_one_message(self, run: Run, options: tuple[str, ...]) -> None:
        done = run(*options, "refuse")
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("train.csv:12: mask [/red] is missing") == 1  # shown as it is, not as markup
        assert "Refused" in done.stderr
        assert "Traceback" not in done.stderr
        assert "DataError" not in done.stderr

    def test_a_name_of_a_file_does_not_command_the_terminal(self) -> None:
        assert printable("a\x1b[2J\n  b\u202e", keep="\n") == "a\\x1b[2J\n  b\\u202e"

    def test_a_message_of_several_lines_is_kept(self, run: Run) -> None:
        assert "and more" in run("refuse", "--many").stderr

    def test_a_crash_is_1_and_says_how_to_see_more(self, run: Run) -> None:
        done = run("crash")
        assert done.returncode == 1
        assert "RuntimeError: the disk is gone" in done.stderr
        assert "infosam -v" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(("options", "environment"), [(("-v",), {}), ((), {"INFOSAM_DEBUG": "1"})])
    def test_a_crash_shows_its_trace_on_demand(
        self, run: Run, options: tuple[str, ...], environment: dict[str, str]
    ) -> None:
        done = run(*options, "crash", **environment)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "extra_commands.py" in done.stderr

    def test_an_interrupt_is_130(self, run: Run) -> None:
        done = run("interrupt")
        assert done.returncode == 130
        assert "Traceback" not in done.stderr

    def test_an_unknown_command_or_option_is_2(self, run: Run) -> None:
        assert run("fin").returncode == 2
        assert run("fine", "--nonsense").returncode == 2


class TestHelp:
    def test_it_teaches(self, run: Run) -> None:
        page = run("--help").stdout
        for text in ("infosam demo", "infosam sweep", "INFOSAM_HOME", "infosam COMMAND --help", "Exit codes"):
            assert text in page

    def test_no_arguments_show_it_too(self, run: Run) -> None:
        assert "infosam demo" in run().stdout


class TestBrokenExtensions:
    """One broken extension is named on stderr and costs nothing else."""

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            ("import a_module_nobody_has", "ModuleNotFoundError"),
            ("def register(:", "SyntaxError"),
            ("something_else = 1", "AttributeError"),
            ("def register(app):\n    raise OSError('no licence')", "OSError: no licence"),
        ],
    )
    def test_it_only_warns(self, run: Run, tmp_path: Path, source: str, reason: str) -> None:
        install(tmp_path, broken_extension=source, extra_commands=COMMANDS)
        done = run("fine")
        assert (done.returncode, done.stdout) == (0, "done\n")
        assert "warning: infosam.commands entry point 'broken_extension'" in done.stderr
        assert reason in done.stderr


def test_the_app_can_be_built_twice() -> None:
    first, second = build_app()[0], build_app()[0]
    assert first is not second
    assert [group.name for group in first.registered_groups] == [group.name for group in second.registered_groups]
    assert isinstance(first, typer.Typer)
