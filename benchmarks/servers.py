"""Real servers on this machine, for tests and benchmarks: PostgreSQL in a folder of its own, and `mlflow server`.

    with postgresql() as database, mlflow_server(database.create("runs"), artifacts) as server:
        MlflowClient(server.uri)

PostgreSQL refuses to run as root, so root starts it as an unprivileged user. All of it listens on loopback and is gone
at the end.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

START_S = 240.0
"""A server that has not answered by then never will: on a busy machine the tables alone take a minute."""
UNPRIVILEGED = ("postgres", "nobody")
WITHOUT_SAFETY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For data that nobody needs after a crash."""


class Missing(RuntimeError):
    """A part of the system is not installed."""


class ServerFailed(RuntimeError):
    """A server did not start; the message holds the end of its output."""


def free_port() -> int:
    """A port of this machine nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# ------------------------------------------------------------------------------------------------------- PostgreSQL


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A running PostgreSQL."""

    binaries: Path  # folder with psql, pg_dump, ...
    port: int
    password: str
    user: str = "postgres"

    @property
    def environment(self) -> dict[str, str]:
        """What every client of PostgreSQL reads, so that no address needs to name the password."""
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": self.user, "PGPASSWORD": self.password}

    def uri(self, name: str) -> str:
        """Address of a database, complete with user and password."""
        return f"postgresql+psycopg2://{self.user}:{self.password}@127.0.0.1:{self.port}/{name}"

    def create(self, name: str) -> str:
        """Makes an empty database; returns its address."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.uri(name)

    def drop(self, name: str) -> None:
        """Removes a database, and throws out whoever is connected."""
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """One statement, as superuser."""
        with self._connected() as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=self.user, password=self.password, dbname="postgres"
        )
        connection.autocommit = True
        try:
            yield connection
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether it takes connections."""
        import psycopg2

        try:
            with self._connected():
                return True
        except psycopg2.OperationalError:
            return False


def postgres_binaries() -> Path:
    """Folder of Debian's newest PostgreSQL, or of the one on the path. Raises Missing."""
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    if not folders:
        raise Missing("needs PostgreSQL: apt-get install postgresql")
    return max(folders, key=lambda folder: (folder.parent.name.isdigit(), folder.parent.name.zfill(4)))


@contextlib.contextmanager
def postgresql() -> Iterator[Postgres]:
    """An empty PostgreSQL that lives as long as the block. Raises Missing, ServerFailed."""
    binaries = postgres_binaries()
    account = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="infosam-pg-"))  # not in a test's folder: the other user must get there
    database = Postgres(binaries=binaries, port=free_port(), password=secrets.token_hex(16))
    word = folder / "password"
    word.write_text(database.password)
    if account:
        for path in (folder, word):
            os.chown(path, account["user"], account["group"])
    try:
        _initialise(database, folder, word, account)
        with _process(_postgres_command(database, folder), folder / "log", signal.SIGQUIT, **account) as process:
            _await(database.answers, process, folder / "log", "PostgreSQL")
            yield database
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(database: Postgres, folder: Path, word: Path, account: Mapping[str, Any]) -> None:
    command = [database.binaries / "initdb", "--pgdata", folder / "data", "--username", database.user, "--pwfile", word]
    command += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **account)
    if done.returncode:
        raise ServerFailed(f"initdb: {done.stdout[-1000:]}{done.stderr[-1000:]}")


def _postgres_command(database: Postgres, folder: Path) -> list[str]:
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **WITHOUT_SAFETY}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return [str(database.binaries / "postgres"), "-D", str(folder / "data"), "-p", str(database.port), *options]


def _unprivileged() -> dict[str, Any]:
    """Arguments of `subprocess` that give up being root; empty for everybody else. Raises Missing."""
    if os.getuid() != 0:
        return {}
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise Missing(f"needs an unprivileged user for PostgreSQL: one of {', '.join(UNPRIVILEGED)}")


# ----------------------------------------------------------------------------------------------------------- MLflow


class MlflowServer:
    """`mlflow server` that can be killed and started again under the same address.

    Args:
        command: starts a server on that port of 127.0.0.1; runs in the folder of the log.
        environment: added to that of this process.
    """

    def __init__(
        self, command: Sequence[str], *, port: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        self.log = log
        self._command = list(command)
        self._environment = dict(environment or {})
        self._running = contextlib.ExitStack()

    def start(self) -> None:
        """Returns when it answers. Raises ServerFailed."""
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **self._environment}
        process = self._running.enter_context(_process(self._command, self.log, signal.SIGKILL, env=environment))
        try:
            _await(self._answers, process, self.log, "mlflow server")
        except ServerFailed:
            self.kill()
            raise

    def kill(self) -> None:
        """Ends it and its workers at once, as a power cut would; may be called for a dead one."""
        self._running.close()

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=5):
                return True
        except OSError:
            return False


@contextlib.contextmanager
def mlflow_server(store: str, artifacts: Path, *, workers: int = 1) -> Iterator[MlflowServer]:
    """A server over a database, with files under `artifacts` and without users. Raises ServerFailed."""
    artifacts.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", store, "--artifacts-destination", artifacts.as_uri(), "--workers", str(workers)]
    server = MlflowServer(command, port=port, log=artifacts.parent / "mlflow-server.log")
    try:
        server.start()
        yield server
    finally:
        server.kill()


# -------------------------------------------------------------------------------------------------------- processes


@contextlib.contextmanager
def _process(
    command: Sequence[str], log: Path, ending: signal.Signals, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own; the group gets the signal at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command), stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=log.parent, **options
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, ending)
        process.wait()


def _await(answers: Any, process: subprocess.Popen[bytes], log: Path, name: str) -> None:
    deadline = time.monotonic() + START_S
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            end = log.read_text(errors="replace")[-3000:] if log.is_file() else ""
            raise ServerFailed(f"{name} did not start: {end}")
        time.sleep(0.2)
