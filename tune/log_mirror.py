"""The log of a sweep in the bucket that its checkpoints are in, for heads that may be lost with their disk.

The bucket hears of everything before the log, and so before MLflow, and before a trial goes on. What a lost head
leaves there is what a driver that died at that moment leaves in its folder, and a sweep goes on from it in the same
way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

import yaml

from infosam.errors import UserError
from tune.bucket import Bucket
from tune.event_log import NAME, encode
from tune.events import Event, ScoredOnTest
from tune.home import Home
from tune.ledger import Ledger
from tune.mirror import LIST_NAME, pull, push
from tune.plan import SETTINGS_FILE, write_whole

LOG = "log"
"""Folder of the log's parts, each called after the byte that it begins with."""
PART_BYTES = 64 << 10
"""An object store cannot append: the last part is sent again with each event until it has this size."""
RESULT = "result"
"""Folder of what cannot be made again: the scores on the test images, and the bundle that has them."""


class LogMirror:
    """Sends the events of a sweep; a listener that goes before the log. A bucket that takes nothing is told of once,
    and gets what it missed with the next event.

    Args:
        log: of the sweep, perhaps written by earlier drivers; what the bucket lacks of it goes with the first event.
        warn: told when the bucket cannot be reached.

    Raises OSError if it cannot be read to begin with."""

    def __init__(self, bucket: Bucket, log: Path, *, warn: Callable[[str], None]) -> None:
        self._bucket, self._warn = bucket, warn
        self._folder = log.parent
        self._is_away = False
        self._start, self._tail = _unsent(bucket, log)

    def __call__(self, event: Event) -> None:
        """Takes in one event."""
        self._tail += encode(event)
        try:
            if isinstance(event, ScoredOnTest):
                push(self._folder / "trials" / event.trial_id, Bucket(f"{self._bucket.uri}/{RESULT}"), 0)
            self._bucket.write(_part(self._start), bytes(self._tail))
            self._is_away = False
        except OSError as error:
            if not self._is_away:
                self._warn(
                    f"{self._bucket.uri}: takes nothing ({error}); if this machine is lost now, so is what comes"
                )
            self._is_away = True
            return
        if len(self._tail) >= PART_BYTES:
            self._start += len(self._tail)
            self._tail.clear()


def recover(address: str, home: Home) -> Path:
    """Brings a sweep whose head is lost from its bucket to this machine; its folder, which `--resume` goes on from.

    Raises UserError if there is no such sweep, or this machine has one of that name; OSError, FetchError."""
    bucket = Bucket(address.rstrip("/"))
    content = b"".join(part for _, part in _parts(bucket))
    if not content:
        raise UserError(
            f"{address}: holds no sweep; name its folder below resources.mirror, which ends in the tag mirror_mark of "
            "its runs, such as s3://BUCKET/checkpoints/polyp-3fa92c01"
        )
    home.sweeps.mkdir(parents=True, exist_ok=True)
    fresh = home.sweeps / f".{bucket.uri.rpartition('/')[2]}.recovered"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    (fresh / NAME).write_bytes(content)
    ledger = Ledger.replay(fresh / NAME)
    assert ledger.sweep is not None  # the first event of every sweep
    storage = yaml.safe_load(ledger.sweep.settings)["storage"]
    folder = (Path(storage) if storage else home.sweeps).absolute() / ledger.sweep.sweep_id
    if folder.exists():
        shutil.rmtree(fresh)
        raise UserError(f"{folder}: is there already; go on with it by --resume {folder}, or move it away first")
    write_whole(fresh / SETTINGS_FILE, ledger.sweep.settings)
    if ledger.test is not None:
        pull(fresh / "trials" / ledger.test.trial_id, Bucket(f"{bucket.uri}/{RESULT}"))
    _forget_unknown(bucket, ledger)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(fresh, folder)
    return folder


def _forget_unknown(bucket: Bucket, ledger: Ledger) -> None:
    """A trial of which the head was about to tell when it was lost: its id will be another's."""
    for name in bucket.folders():
        if name not in (*ledger.trials, LOG, RESULT):
            bucket.remove(f"{name}/{LIST_NAME}")


def _part(start: int) -> str:
    return f"{LOG}/{start:012d}"


def _parts(bucket: Bucket) -> Iterator[tuple[int, bytes]]:
    """The parts of the log, after the bytes that they begin with."""
    start = 0
    while part := bucket.read(_part(start)):
        yield start, part
        start += len(part)


def _unsent(bucket: Bucket, log: Path) -> tuple[int, bytearray]:
    """Where the first part begins that is not full or not as in the log, and the log from there."""
    content, parts = log.read_bytes(), list(_parts(bucket))
    kept = list(takewhile(lambda one: len(one[1]) >= PART_BYTES and content.startswith(one[1], one[0]), parts))
    # What a log had that lost its last lines with the power of its machine; the log is the truth.
    for stale, _ in reversed(parts[len(kept) + 1 :]):
        bucket.remove(_part(stale))
    start = sum(len(part) for _, part in kept)
    return start, bytearray(content[start:])
