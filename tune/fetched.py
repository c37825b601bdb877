"""Files that each machine of a cluster fetches for itself before it trains: once, whole, compared with their sums."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from infosam.data.card import CARD_NAME, read_card
from infosam.errors import FetchError
from tune.bucket import Bucket

SUM_SUFFIX = ".sha256"
"""Of a file in the bucket that holds the sum of the one beside it, as the command sha256sum writes it."""
DIGEST_MARK = "#digest="
"""Before the digest of the data set that an address must hold; without it whatever is there is taken."""


def fetch_all(wanted: Mapping[str, str], open_bucket: Callable[[str], Bucket] = Bucket) -> None:
    """Makes every path there, from its address: see `resources.fetch`. What is there already stays.

    Processes of a machine wait for each other. Raises UserError."""
    for path, uri in wanted.items():
        _fetch(Path(path).absolute(), uri, open_bucket)


def _fetch(path: Path, address: str, open_bucket: Callable[[str], Bucket]) -> None:
    if path.exists():
        return
    uri, _, digest = address.partition(DIGEST_MARK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if path.exists():  # another process was first
                return
            if digest or open_bucket(uri).exists(CARD_NAME):
                _fetch_dataset(path, uri, digest)
            else:
                folder, _, name = uri.rpartition("/")
                _fetch_file(path, open_bucket(folder), name)
    except FileNotFoundError as error:
        raise FetchError(f"resources.fetch: {uri}: no such file or data set; correct the address ({error})") from error
    except OSError as error:
        raise FetchError(
            f"resources.fetch: {uri} cannot be fetched to {path}: {error}; check the address, the rights of this "
            "machine, and its disk"
        ) from error


def _fetch_dataset(path: Path, uri: str, digest: str) -> None:
    """The folder is named after its content; unless that is its path already, the path leads there."""
    from infosam.data.remote import local_copy

    folder = local_copy(uri, path.parent)
    if digest and (found := read_card(folder).digest) != digest:
        raise FetchError(
            f"{uri}: holds another data set by now (digest {found[:12]}, the sweep began with {digest[:12]}); put that "
            "back, or start another sweep"
        )
    if folder == path:
        return
    link = path.with_name(f".{path.name}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(path)


def _fetch_file(path: Path, bucket: Bucket, name: str) -> None:
    said = bucket.read(f"{name}{SUM_SUFFIX}")
    partial = path.with_name(f".{path.name}.partial")
    try:
        found = bucket.fetch(name, partial)
        if said is not None and said.split()[:1] != [found.encode()]:
            raise FetchError(
                f"resources.fetch: {bucket.uri}/{name}: SHA-256 {found}, {name}{SUM_SUFFIX} says "
                f"{said.decode(errors='replace').strip()}; put the right file there"
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process of this machine fetches it; the system ends the lock with its process."""
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
