"""Checkpoints in an object store, for clusters whose machines share no folder.

After each epoch, and before anybody hears of it, what the trial's folder holds goes into its bucket; wherever the trial
goes on, its folder is first made what the bucket says. Files are stored under their own sums, and a list of them is
replaced last, so that the bucket always holds one whole checkpoint. A process that was cut off and comes back late
cannot set a trial back."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infosam.errors import FetchError
from tune.bucket import Bucket

LIST_NAME = "checkpoint.json"
"""The list of a trial's files in its bucket: epoch, and the stored name of each."""


class Overtaken(RuntimeError):
    """Another process is further with this trial, so that this one's state is of no use."""


@dataclass(frozen=True, kw_only=True)
class _List:
    epoch: int = 0
    files: Mapping[str, str] = field(default_factory=dict)  # path in the trial's folder -> SHA-256, its stored name


def push(folder: Path, bucket: Bucket, epoch: int) -> None:
    """Makes the bucket hold what the folder does after `epoch`. Raises Overtaken, OSError."""
    before = _read_list(bucket)
    if before.epoch > epoch:
        raise Overtaken(f"{bucket.uri} holds epoch {before.epoch} of this trial, later than {epoch}")
    files = _files(folder)
    for path, name in files.items():
        if name not in before.files.values():
            bucket.send(folder / path, name)
    bucket.write(LIST_NAME, json.dumps({"epoch": epoch, "files": files}).encode())
    for name in {*before.files.values()} - {*files.values()}:
        bucket.remove(name)


def pull(folder: Path, bucket: Bucket) -> None:
    """Makes the folder hold what the bucket does; nothing if that is nothing. Processes of a machine wait for
    each other.

    Raises FetchError for a damaged file, OSError."""
    wanted = _read_list(bucket).files
    if not wanted:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if _files(folder) == wanted:
            return
        fresh = folder.with_name(f".{folder.name}.fresh")
        shutil.rmtree(fresh, ignore_errors=True)
        for path, name in wanted.items():
            target = fresh / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if (found := bucket.fetch(name, target)) != name:
                raise FetchError(f"{bucket.uri}/{name}: SHA-256 {found}: damaged; the trial cannot go on from there")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)


def _read_list(bucket: Bucket) -> _List:
    content = bucket.read(LIST_NAME)
    found = _List() if content is None else _List(**json.loads(content))
    for path in found.files:  # a bucket must not lead out of the trial's folder
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise FetchError(f"{bucket.uri}/{LIST_NAME}: {path!r} is no file of a trial's folder")
    return found


def _files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path below the folder; what is only half written lies in `*.part`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.endswith(".part") for part in relative.parts):
            with path.open("rb") as file:
                found[str(relative)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
