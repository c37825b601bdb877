"""Brings a data set from a bucket, or any other file system that Arrow or fsspec knows, to this machine once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs

from infosam.data.card import CARD_NAME, DatasetCard, read_card
from infosam.download import Progress, sha256_of_file
from infosam.errors import DataError

CHUNK_BYTES = 8 << 20
WITH_SECRET = re.compile(r"([^:/]+)://[^/?#@]*:(?!\d+/)[^@]*@")


def local_copy(url: str, cache: Path, progress: Progress | None = None) -> Path:
    """The folder below `cache` with the data set at `url` (s3://bucket/set, ...), copied unless it is there already.

    The folder is named after domain and digest, so a data set that changed gets another one. Every file is compared
    with its sum in the card. A copy that was stopped goes on with the first file that is missing; two processes wait
    for each other. `progress` is called with (bytes there, bytes in all). Raises DataError."""
    system, root = file_system(url)
    with telling(url):
        described = _content(system, url, f"{root}/{CARD_NAME}")
        card = _understood(described)
        target = cache / copy_name(card)
        if target.exists():
            return target
        partial = cache / f".{target.name}.partial"
        (partial / "data").mkdir(parents=True, exist_ok=True)
        with _alone(partial):
            if not target.exists():  # else another process was first
                _copy_files(system, root, url, card, partial, progress)
                (partial / CARD_NAME).write_bytes(described)
                partial.rename(target)
    return target


def remote_card(url: str) -> DatasetCard:
    """What the data set at an address says of itself; nothing else is copied. Raises DataError."""
    system, root = file_system(url)
    with telling(url):
        return _understood(_content(system, url, f"{root}/{CARD_NAME}"))


def copy_name(card: DatasetCard) -> str:
    """The folder of a copy, named after its content."""
    return f"{card.domain}-{card.digest[:16]}"


def file_system(url: str) -> tuple[Any, str]:
    """The file system of an address and the path in it: Arrow's own (s3, gs, hdfs, file), then those of fsspec.

    Raises DataError, also for an address with a secret in it, which would be shown, and stored with results."""
    if found := WITH_SECRET.match(url):
        raise DataError(
            f"{found[1]}://...@{url[found.end() :]}: leave the secret out of the address, it would end in logs and "
            "results; set it in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or in ~/.aws"
        )
    try:
        system, root = pa.fs.FileSystem.from_uri(url.rstrip("/"))
        return system, root
    except (pa.ArrowException, OSError, ValueError):
        scheme = urlsplit(url).scheme
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(url.rstrip("/"))
        return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(system)), root
    except ImportError as error:
        raise DataError(f"{url}: a package for {scheme}:// is not installed ({error}); install it with pip") from error
    except ValueError as error:
        raise DataError(f"{url}: {scheme}:// is not understood ({error}); use s3://, gs:// or a folder") from error


def _content(system: Any, url: str, path: str) -> bytes:
    try:
        with system.open_input_stream(path) as stream:
            return bytes(stream.read())
    except FileNotFoundError:
        raise DataError(f"{url}: not an imported data set (no {CARD_NAME} in it); correct the address") from None


def _understood(described: bytes) -> DatasetCard:
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / CARD_NAME).write_bytes(described)
        return read_card(Path(scratch))


def _copy_files(system: Any, root: str, url: str, card: DatasetCard, folder: Path, progress: Progress | None) -> None:
    wanted = {shard.name: shard.sha256 for shard in card.shards} | ({card.moves: None} if card.moves else {})
    sizes = {name: int(system.get_file_info(f"{root}/{name}").size or 0) for name in wanted}
    done, total = 0, sum(sizes.values())
    for name, sha256 in wanted.items():
        out = folder / name
        if not (sha256 and out.is_file() and sha256_of_file(out) == sha256):
            found = _copy(system, f"{root}/{name}", out)
            if sha256 and found != sha256:
                out.unlink()
                raise DataError(f"{url}/{name}: SHA-256 {found}, its card says {sha256}; it is damaged: copy it anew")
        done += sizes[name]
        if progress:
            progress(done, total)


def _copy(system: Any, path: str, out: Path) -> str:
    """Copies one file; returns its SHA-256."""
    digest = hashlib.sha256()
    with system.open_input_stream(path) as stream, out.open("wb") as file:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is at work in a folder; the system ends the lock with its process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def telling(url: str) -> Iterator[None]:
    """What goes wrong inside, as a DataError with the address."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{url}: cannot be copied ({error}); check the address, your rights, and the disk") from error
