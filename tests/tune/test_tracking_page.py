"""docs/tracking.md: its commands, run as they are written there, but for the port and the folder of files."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tune.champions.lookup import resolve
from tune.champions.promotion import promote
from tune.home import Home

if TYPE_CHECKING:
    from servers import MlflowServer, Postgres

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tracking.md").read_text(encoding="utf-8")
FAKES = Path(__file__).parent / "fakes"
SECRETS = ("PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def block(name: str, **changes: str) -> str:
    """A command of the page; each change must apply."""
    found = re.search(rf"<!-- tested: {name} -->\n```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found, f"docs/tracking.md has no block {name}"
    text = found[1]
    for old, new in changes.items():
        assert old in text, f"{name}: {old}"
        text = text.replace(old, new)
    return text


def bash(text: str, folder: Path, **environment: str) -> str:
    """Runs a block in a folder with our Python and PostgreSQL's own tools in front; its output."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=folder, env=shell(**environment), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(**environment: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}


@dataclass(frozen=True)
class Team:
    """The page's server, started by its commands in `folder`, and the password of its user ada."""

    folder: Path
    server: MlflowServer
    postgres: Postgres
    secrets: dict[str, str]
    ada: str

    def as_user(self, patch: pytest.MonkeyPatch, name: str) -> MlflowClient:
        password = self.ada if name == "ada" else self.secrets["MLFLOW_AUTH_ADMIN_PASSWORD"]
        patch.setenv("MLFLOW_TRACKING_URI", self.server.uri)
        patch.setenv("MLFLOW_TRACKING_USERNAME", name)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        return MlflowClient(self.server.uri)


@pytest.fixture(scope="module")
def team(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    from servers import MlflowServer, free_port

    folder, port = tmp_path_factory.mktemp("server"), free_port()
    (folder / "cluster").mkdir()
    (folder / "srv").mkdir()
    shutil.copy(ROOT / "cluster" / "mlflow_auth.ini", folder / "cluster")
    bash(block("secrets"), folder)
    make_database(postgres, folder)
    changes = {"5000": str(port), "/srv/mlflow": f"{folder}/srv", "--workers 4": "--workers 1"}
    server = MlflowServer(
        ["bash", "-euc", block("server", **changes)],
        port=port,
        log=folder / "server.log",
        environment=shell(PGPORT=str(postgres.port)),
    )
    try:
        server.start()
        password = bash(block("users", **{"5000": str(port)}), folder).split()[-1]
        written = (line.split("=") for line in (folder / "cluster" / ".env").read_text().splitlines())
        yield Team(folder, server, postgres, dict(written), password)
    finally:
        server.kill()


def make_database(postgres: Postgres, folder: Path) -> None:
    text = block("database", **{"sudo -u postgres psql": 'PGPASSWORD="$SUPERUSER" psql --no-psqlrc -v ON_ERROR_STOP=1'})
    bash(text, folder, **{**postgres.environment, "SUPERUSER": postgres.password, "PGDATABASE": "postgres"})


def test_secrets_are_made_for_their_owner_only(team: Team) -> None:
    assert tuple(team.secrets) == SECRETS
    assert len(set(team.secrets.values())) == 3
    assert all(re.fullmatch(r"[0-9a-f]{48}", secret) for secret in team.secrets.values())
    assert stat.S_IMODE((team.folder / "cluster" / ".env").stat().st_mode) == 0o600


def test_no_secret_is_on_a_command_line_or_in_the_log(team: Team) -> None:
    shown = team.server.log.read_text(errors="replace")
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            shown += process.read_text(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
    assert not any(secret in shown for secret in team.secrets.values())


def test_nobody_comes_in_without_a_password_or_by_a_foreign_name(team: Team) -> None:
    def answer(**headers: str) -> int:
        request = Request(f"{team.server.uri}/api/2.0/mlflow/experiments/search?max_results=1", headers=headers)
        with pytest.raises(HTTPError) as refused:
            urlopen(request, timeout=60)
        refused.value.close()
        return refused.value.code

    assert answer() == 401
    assert answer(Host="attacker.example.org") == 403


def test_users_are_in_postgresql_and_see_only_their_own(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = team.as_user(monkeypatch, "admin")
    secret_run = admin.create_run(admin.create_experiment("of the admin"))
    ada = team.as_user(monkeypatch, "ada")
    assert "of the admin" not in [found.name for found in ada.search_experiments()]
    with pytest.raises(MlflowException, match="Permission denied"):
        ada.get_run(secret_run.info.run_id)
    with pytest.raises(MlflowException, match="Permission denied"):
        ada.log_metric(secret_run.info.run_id, "val/dice", 1.0)
    own = ada.create_run(ada.create_experiment("of ada"))
    ada.log_text(own.info.run_id, "kept by the server", "note.txt")
    assert own.info.artifact_uri.startswith("mlflow-artifacts:")
    assert [path.read_text() for path in (team.folder / "srv").rglob("note.txt")] == ["kept by the server"]
    assert not list(team.folder.rglob("*.db"))
    assert "ada" in query(team, "SELECT username FROM users")


def query(team: Team, text: str) -> list[str]:
    command = [str(team.postgres.binaries / "psql"), "-At", "-d", "mlflow", "-c", text]
    done = subprocess.run(command, env={**os.environ, **team.postgres.environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_postgresql_backup_gives_the_champion_back(
    team: Team, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    challengers = made_up(monkeypatch)
    team.as_user(monkeypatch, "ada")
    offered = challengers.challenger(team.server.uri, None, tmp_path / "trials", 0.8, domain="restored")
    assert promote(team.server.uri, replace(offered, domain="restored"), challengers.rescore).promoted
    changes = {"/srv/mlflow": f"{team.folder}/srv"}
    reach = {"PGPORT": str(team.postgres.port), "PATH": f"{team.postgres.binaries}:{shell()['PATH']}"}
    bash(block("backup-postgres", **changes), team.folder, **reach)

    team.server.kill()
    shutil.rmtree(team.folder / "srv" / "artifacts")
    team.postgres.drop("mlflow")
    team.postgres.execute("DROP ROLE mlflow")
    make_database(team.postgres, team.folder)
    bash(block("restore-postgres", **changes), team.folder, **reach)
    team.server.start()

    bundle = resolve("restored")
    assert bundle is not None
    assert (bundle / "card.json").read_bytes() == (offered.bundle / "card.json").read_bytes()
    assert (bundle / "rest.safetensors").read_bytes() == (offered.bundle / "rest.safetensors").read_bytes()
    assert "ada" in query(team, "SELECT username FROM users")


def test_embedded_backup_gives_the_champion_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = Home(folder=tmp_path / "infosam-runs")
    home.folder.mkdir()
    monkeypatch.setenv("INFOSAM_HOME", str(home.folder))
    challengers = made_up(monkeypatch)
    offered = challengers.challenger(home.tracking_uri, home.artifacts.as_uri(), home.sweeps, 0.8)
    assert promote(home.tracking_uri, offered, challengers.rescore).promoted
    card = (offered.bundle / "card.json").read_bytes()
    bash(block("backup-embedded"), tmp_path)
    shutil.rmtree(home.folder)
    bash(block("restore-embedded"), tmp_path)
    bundle = resolve("polyp")
    assert bundle is not None
    assert (bundle / "card.json").read_bytes() == card


def made_up(patch: pytest.MonkeyPatch) -> Any:
    patch.syspath_prepend(str(FAKES))
    return importlib.import_module("challengers")
