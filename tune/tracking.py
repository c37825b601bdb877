"""Tracking that cannot stop a sweep: one thread follows the sweep's log into MLflow, and tries again on errors.

Nobody hands anything to the thread, it reads the log as `infosam sync` and the next driver would, from a saved offset.
While the server is away it waits with growing pauses and nothing is lost; what could not be written by the end is
counted, and `infosam sync` brings it later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tune.event_log import read_events
from tune.events import Event
from tune.mlflow_writer import PARENT, MlflowWriter, TrialFiles
from tune.position import Position, without_password
from tune.stores import check_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_S = 0.5
"""How often the log is looked at; epochs that come faster share a request."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
PATIENCE_S = 10.0
"""How long the end of a sweep waits for a server that answers with errors, or not at all."""
STUCK_S = 300.0
"""How long it waits for one request that is on its way, such as a large bundle."""

CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the thread retries itself, and must notice the end of the sweep
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",  # it tells of making its tables
}


@dataclass(frozen=True, kw_only=True)
class TrackingResult:
    """What became of the records."""

    unwritten: int  # events that MLflow has not taken, and records that it never will
    error: str | None  # the last failure, if some are unwritten


class LogFollower:
    """Takes a sweep's log to one store, from where the last follower of both stopped. Not safe for several threads.

    Raises UserError if another process does the same, MlflowException if the store does not answer."""

    def __init__(self, uri: str, log: Path, files: TrialFiles) -> None:
        self._log = log
        self._position = Position(log, uri)
        try:
            client = new_client(uri)
            known = self._position.run_ids
            if not _exists(client, known.get(PARENT)):  # another store took its place
                known, self._position.offset = {}, 0
            self.writer = MlflowWriter(
                client, folder=log.parent, artifacts=artifact_root(uri), files=files, known=known
            )
            for event, offset in read_events(log):
                if offset > self._position.offset:
                    break
                self.writer.take(event, written=True)
        except BaseException:
            self._position.close()
            raise
        self._offset = self._position.offset

    @property
    def offset(self) -> int:
        """Everything before it in the log is in the store."""
        return self._position.offset

    def catch_up(self, *last: Event) -> None:
        """Brings the store to the log's state. May be called again after it failed.

        Args:
            last: events that follow those of the log and are not in it."""
        for event, offset in read_events(self._log, self._offset):
            self.writer.take(event)
            self._offset = offset
        for event in last:
            self.writer.take(event)
        self.writer.write()
        if self._offset != self._position.offset:
            self._position.save(self._offset, self.writer.run_ids)

    def close(self) -> None:
        """Lets others write to this store."""
        self._position.close()


class Tracker:
    """Follows a sweep's log in the background. Call `close` however the sweep ends.

    Args:
        uri: tracking server or database.
        log: the sweep's log, which exists.
        files: of ended trials; asked by the thread.
        warn: told once when the server cannot be reached, and once when it is back.
        patience_s: how long the end of a sweep waits for a server that takes nothing."""

    def __init__(
        self,
        uri: str,
        log: Path,
        *,
        files: TrialFiles,
        warn: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.uri = uri
        self._log = log
        self._files = files
        self._warn = warn
        self._patience_s = patience_s
        self._follower: LogFollower | None = None
        self._error: str | None = None
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._begun = self._done = 0  # rounds over the log
        self._closed = False
        self._hurry = False
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._thread.start()

    def flush(self) -> bool:
        """Waits until everything in the log is written; False if the server does not take it."""
        wanted = self._begun + 1  # a round that began later sees all that is there now
        self._hurry = True
        self._wake.set()
        calls, moved = self._calls, time.monotonic()
        settled, failing_since = self._settled, None
        try:
            with self._changed:
                while self._done < wanted:
                    now = time.monotonic()
                    if self._calls != calls:
                        calls, moved = self._calls, now
                    if self._settled != settled or not self._error:
                        settled, failing_since = self._settled, None
                    else:
                        failing_since = failing_since or now
                    if now - moved >= STUCK_S or (failing_since and now - failing_since >= self._patience_s):
                        return False
                    self._changed.wait(0.1)
        finally:
            self._hurry = False
        return True

    def run_of(self, trial_id: str) -> str | None:
        """The run id of a trial, once written."""
        return self._follower.writer.run_ids.get(trial_id) if self._follower else None

    def close(self) -> TrackingResult:
        """Writes what the log holds and ends the thread; gives up on a server that does not answer."""
        if self._closed:
            raise RuntimeError("a tracker is closed once")
        self.flush()
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=5.0)
        refusals = self._follower.writer.refusals if self._follower else []
        offset = self._follower.offset if self._follower else 0
        unwritten = sum(1 for _ in read_events(self._log, offset)) + len(refusals)
        error = self._error or (refusals[-1] if refusals else None)
        return TrackingResult(unwritten=unwritten, error=error if unwritten else None)

    @property
    def _calls(self) -> int:
        return self._follower.writer.calls if self._follower else 0

    @property
    def _settled(self) -> int:
        return self._follower.writer.settled if self._follower else 0

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed:
            self._begun += 1
            try:
                if self._follower is None:
                    self._follower = LogFollower(self.uri, self._log, self._files)
                self._follower.catch_up()
            except Exception as error:  # noqa: BLE001 - the sweep must not depend on what a server answers
                self._note_failure(error)
                self._wake.wait(min(pause_s, FIRST_PAUSE_S) if self._hurry else pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            else:
                self._note_success()
                pause_s = FIRST_PAUSE_S
                self._wake.wait(POLL_S)
            self._wake.clear()
        if self._follower is not None:
            self._follower.close()

    def _note_failure(self, error: Exception) -> None:
        first, self._error = self._error is None, f"{type(error).__name__}: {error}"
        if first:
            self._warn(
                f"MLflow at {without_password(self.uri)} takes no records; the sweep goes on and they are kept: "
                f"{self._error}"
            )

    def _note_success(self) -> None:
        with self._changed:
            self._done = self._begun
            self._changed.notify_all()
        if self._error is not None:
            self._error = None
            self._warn("MLflow takes records again")


def new_client(uri: str) -> MlflowClient:
    """A client of that store; a local database is made if it is not there. Raises UnfitStore for a folder."""
    import logging

    check_store(uri)
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):  # the last tells of every retry
        logging.getLogger(name).setLevel(logging.ERROR)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def artifact_root(uri: str) -> Path | None:
    """Where the runs of an embedded database keep files: beside it. None for a server, which says so itself."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute().parent / "artifacts"


def _exists(client: MlflowClient, run_id: str | None) -> bool:
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return False
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
