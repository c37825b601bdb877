"""Tracking that cannot stop a sweep: events go into a queue, one thread takes them to MLflow and tries again on errors.

While the server is away the thread waits with growing pauses and nothing is lost; what could not be written by the end
is counted, and is still in the sweep's event log."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tune.events import Event
from tune.mlflow_writer import MlflowWriter, SweepFacts, SweepSummary

if TYPE_CHECKING:
    from mlflow import MlflowClient

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
PATIENCE_S = 10.0
"""How long the end of a sweep waits for a server that answers with errors, or not at all."""
STUCK_S = 300.0
"""How long it waits for one record that is on its way, such as a large bundle."""

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED")
"""Answers to a record that the server will never take."""

CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the thread retries itself, and must notice the end of the sweep
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True, kw_only=True)
class TrackingResult:
    """What became of the records."""

    unwritten: int  # events and summary that MLflow never took
    error: str | None  # the last failure, if some are unwritten


class Tracker:
    """Takes a sweep's events to MLflow in the background. Call `close` however the sweep ends.

    Args:
        uri: tracking server or database.
        bundle_of: see MlflowWriter.
        warn: told once when the server cannot be reached, and once when it is back.
        patience_s: how long the end of a sweep waits for a server that takes nothing.
    """

    def __init__(
        self,
        uri: str,
        facts: SweepFacts,
        *,
        bundle_of: Callable[[str], Path | None],
        warn: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.uri = uri
        self._facts = facts
        self._bundle_of = bundle_of
        self._warn = warn
        self._patience_s = patience_s
        self._queue: queue.Queue[Event | SweepSummary] = queue.Queue()
        self._error: str | None = None
        self._deadline: float | None = None
        self._wake = threading.Event()
        self._idle = threading.Condition()
        self._pending = 0
        self._refused = 0
        self._refusal: str | None = None
        self._writer: MlflowWriter | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Queues one event; returns at once."""
        self._put(event)

    def flush(self) -> bool:
        """Waits until everything queued is written; False if the server does not take it."""
        with self._idle:
            left, moved = self._pending, time.monotonic()
            failing_since: float | None = None
            while self._pending:
                now = time.monotonic()
                if self._pending < left:
                    left, moved = self._pending, now
                failing_since = (failing_since or now) if self._error else None
                if now - moved >= STUCK_S or (failing_since and now - failing_since >= self._patience_s):
                    return False
                self._idle.wait(0.2)
        return True

    def run_of(self, trial_id: str) -> str | None:
        """The run id of a trial, once written."""
        return self._writer.children.get(trial_id) if self._writer else None

    def close(self, summary: SweepSummary) -> TrackingResult:
        """Writes the summary, closes all runs and ends the thread; gives up on a server that does not answer."""
        if self._deadline is not None:
            raise RuntimeError("a tracker is closed once")
        self._put(summary)
        self._wake.set()  # no long pause now
        self.flush()
        self._deadline = time.monotonic()
        self._wake.set()
        self._thread.join(timeout=5.0)
        return TrackingResult(unwritten=self._pending + self._refused, error=self._error or self._refusal)

    def _put(self, item: Event | SweepSummary) -> None:
        with self._idle:
            self._pending += 1
        self._queue.put(item)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if not self._write(item):
                return
            with self._idle:
                self._pending -= 1
                self._idle.notify_all()
            if isinstance(item, SweepSummary):
                return

    def _write(self, item: Event | SweepSummary) -> bool:
        """Tries until it is written; False once the sweep is over and it still is not."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                writer = self._ready_writer()
                if isinstance(item, SweepSummary):
                    writer.finish(item)
                else:
                    writer.write(item)
            except Exception as error:  # noqa: BLE001 - the sweep must not depend on what a server answers
                if getattr(error, "error_code", None) in REFUSALS:  # again would be in vain, and hold up the rest
                    self._refused, self._refusal = self._refused + 1, str(error)
                    return True
                self._note_failure(error)
            else:
                self._note_success()
                return True
            if self._deadline is not None:
                return False
            self._wake.wait(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S if not self._wake.is_set() else 1.0)
            if self._wake.is_set():
                time.sleep(0.2)

    def _ready_writer(self) -> MlflowWriter:
        if self._writer is None:
            self._writer = MlflowWriter(new_client(self.uri), self._facts, self._bundle_of)
        if not self._writer.started:
            self._writer.start()
        return self._writer

    def _note_failure(self, error: Exception) -> None:
        first, self._error = self._error is None, f"{type(error).__name__}: {error}"
        if first:
            self._warn(f"MLflow at {self.uri} takes no records; the sweep goes on and they are kept: {self._error}")

    def _note_success(self) -> None:
        if self._error is not None:
            self._error = None
            self._warn("MLflow takes records again")


def new_client(uri: str) -> MlflowClient:
    """A client of that store; a local database is made if it is not there."""
    import logging

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):  # the last tells of every retry
        logging.getLogger(name).setLevel(logging.ERROR)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)
