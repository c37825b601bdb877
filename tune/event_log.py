"""The one truth of a sweep: an append-only file with one JSON line per event, `events.jsonl` in the sweep's folder.

Each line begins with the CRC-32 of the rest, so that damage is noticed and named. The driver writes, under a lock; the
tracker, the report, resume and `infosam sync` read, each from the offset where it stopped."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

from infosam.errors import UserError
from tune.events import (
    BudgetSpent,
    EpochReported,
    Event,
    PromotionDecided,
    ScoredOnTest,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialRetried,
    TrialStarted,
)

NAME = "events.jsonl"
KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        SweepStarted,
        SweepEnded,
        BudgetSpent,
        ScoredOnTest,
        PromotionDecided,
        TrialStarted,
        TrialRetried,
        EpochReported,
        TrialEnded,
    )
}
MILESTONES = (SweepStarted, SweepEnded, ScoredOnTest, PromotionDecided, TrialEnded)
"""Events after which the file is forced to the disk; after the others the operating system keeps them."""

_HEAD = b'{"crc": "'
_HEAD_BYTES = len(_HEAD) + 8 + len(b'", ')


class EventLog:
    """Appends events to a log; a listener. Safe for several threads.

    A torn last line, left by a driver that died while writing, is moved into a file beside the log. What a full disk
    refuses is kept and written with the next event.

    Raises UserError if another process writes this log, or if a line in its middle is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._unwritten: list[bytes] = []
        self._file = path.open("ab", buffering=0)
        try:
            _take(self._file.fileno(), path)
            self._size = _repair(path)
        except BaseException:
            self._file.close()
            raise

    def __call__(self, event: Event) -> None:
        """Writes one event. Raises OSError if the disk does not take it; the next call tries again."""
        with self._lock:
            self._unwritten.append(encode(event))
            self._write()
            if isinstance(event, MILESTONES):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Writes what is left and gives the log back."""
        with self._lock:
            try:
                self._write()
            finally:
                self._file.close()

    def _write(self) -> None:
        while self._unwritten:
            line = self._unwritten[0]
            try:
                written = self._file.write(line)
                if written != len(line):  # what the system does with the last bytes of a disk
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                os.truncate(self.path, self._size)  # half a line would spoil the next one
                raise
            self._size += len(line)
            del self._unwritten[0]


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Events from a byte offset on, each with the offset after it; a torn last line is left for later.

    Kinds and fields that a newer version added are passed over. Raises UserError that names a damaged line."""
    for body, end in _sound_lines(path, offset):
        event = _decode(body)
        if event is not None:
            yield event, end


def encode(event: Event) -> bytes:
    """Its line in a log."""
    body = json.dumps({"event": type(event).__name__, **dataclasses.asdict(event)}).encode()
    return _HEAD + f"{zlib.crc32(body):08x}".encode() + b'", ' + body[1:] + b"\n"


def is_written(path: Path) -> bool:
    """Whether a living process holds the log open for writing."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{path}: another process runs this sweep and writes its log; wait for it, or stop it with Ctrl-C"
        ) from None


def _repair(path: Path) -> int:
    """Cuts off what follows the last sound line; the size after it."""
    sound = max((end for _, end in _sound_lines(path)), default=0)
    if path.stat().st_size > sound:
        with path.open("rb") as file:
            file.seek(sound)
            path.with_name(f"{path.name}.torn-at-{sound}").write_bytes(file.read())
        os.truncate(path, sound)
    return sound


def _sound_lines(path: Path, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """The JSON of each line with the offset after it, up to a torn last one. Raises UserError."""
    with path.open("rb") as file:
        file.seek(offset)
        line = file.readline()
        while line.endswith(b"\n"):
            body, following = _checked(line), file.readline()
            if body is None:
                if not following:
                    return
                raise _damaged(path, offset)
            offset += len(line)
            yield body, offset
            line = following


def _checked(line: bytes) -> bytes | None:
    """The JSON of a line without its checksum; None if they do not fit."""
    body = b"{" + line[_HEAD_BYTES:-1]
    return body if line[:_HEAD_BYTES] == _HEAD + f"{zlib.crc32(body):08x}".encode() + b'", ' else None


def _decode(body: bytes) -> Event | None:
    fields = json.loads(body)
    kind = KINDS.get(fields.pop("event"))
    if kind is None:
        return None
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in fields.items() if name in known})


def _damaged(path: Path, offset: int) -> UserError:
    with path.open("rb") as file:
        number = file.read(offset).count(b"\n") + 1
    return UserError(
        f"{path}, line {number}: damaged, its checksum does not fit; restore the file from a backup, or delete that "
        "line to go on without this event"
    )
