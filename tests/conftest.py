"""Fixtures every test may use, and the skip policy.

Skip policy: a test that lacks a part of the system skips and says why. On a developer's machine that is fine; with
CI=true it would let a whole suite go dark unnoticed, so there every skip must match a line of allowed_skips.txt
beside this file, or the run fails.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servers import MlflowServer, Postgres

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent
NO_GPU = "needs a CUDA GPU"


# ---------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the small real data sets (one folder per domain); they may not be part of this repository."""
    named = os.environ.get("INFOSAM_TEST_DATA")
    folder = Path(named) if named else HERE.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is missing; name its folder in INFOSAM_TEST_DATA")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reaches a user's results, a running Ray cluster, a model hub, or Ray's usage statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFOSAM_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "INFOSAM_DEBUG"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def infosam_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the results of this one test; INFOSAM_HOME names it."""
    home = tmp_path / "home"
    monkeypatch.setenv("INFOSAM_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL for all tests; each makes databases of its own."""
    from servers import Missing, postgresql

    try:
        with postgresql() as database:
            yield database
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def team_server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One `mlflow server` over PostgreSQL, which also keeps the artifacts. Whoever kills it starts it again."""
    from servers import mlflow_server

    with mlflow_server(postgres.create("team"), tmp_path_factory.mktemp("team") / "artifacts") as server:
        yield server


# ------------------------------------------------------------------------------------------------- skip policy


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI", "").lower() == "true":
        config.pluginmanager.register(SkipPolicy(HERE / "allowed_skips.txt"), "skip-policy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch  # costs seconds, so only for a run that holds such a test

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=NO_GPU))


class SkipPolicy:
    """Fails the run at its end if a test or a module was skipped that no line of the list allows."""

    def __init__(self, allowed: Path) -> None:
        self._allowed = read_allowed(allowed)
        self._refused: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not hasattr(report, "wasxfail"):  # an expected failure is also reported as skipped
            self._judge(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._judge(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._refused and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._refused:
            terminalreporter.section("skips that CI does not allow", red=True)
            for line in self._refused:
                terminalreporter.line(line)
            terminalreporter.line("Install what is missing (make test-deps), or list them in tests/allowed_skips.txt.")

    def _judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped:
            return
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not any(node.fullmatch(report.nodeid) and why.fullmatch(reason) for node, why in self._allowed):
            self._refused.append(f"{report.nodeid} | {reason}")


def read_allowed(path: Path) -> list[tuple[re.Pattern[str], re.Pattern[str]]]:
    """The pairs of patterns for node id and reason that a list of allowed skips holds."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        node, separator, reason = line.partition(" | ")
        if not separator:
            raise pytest.UsageError(f"{path.name}:{number}: expected NODE ID PATTERN | REASON PATTERN, got {line!r}")
        pairs.append((_pattern(node), _pattern(reason)))
    return pairs


def _pattern(text: str) -> re.Pattern[str]:
    """Only * and ? are special: the brackets of a parametrised node id stand for themselves."""
    return re.compile(re.escape(text.strip()).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
