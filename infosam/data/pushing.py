"""Puts a data set into a bucket, or any other place that `remote` knows, so that nobody ever sees half of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infosam.data.card import CARD_NAME, DatasetCard, Shard, read_card
from infosam.data.remote import CHUNK_BYTES, file_system, remote_card, telling
from infosam.download import Progress, sha256_of_file
from infosam.errors import DataError


@contextmanager
def placed(out: str, progress: Progress | None = None, *, overwrite: bool = False) -> Iterator[Path]:
    """The folder to write a data set for `out` into: `out` itself, or, for an address (s3://bucket/set, ...), one of
    this machine's temporary folder, which is pushed and removed afterwards.

    That needs room here for the whole data set. Raises DataError before anything is made: for an address that cannot
    be written to, and for one where a data set lies, which only `overwrite` replaces."""
    if "://" not in out:
        yield Path(out)
        return
    there = _writable(out)
    if there is not None and not overwrite:
        raise DataError(
            f"--out {out}: holds a data set already (domain {there.domain}, {sum(there.counts.values())} rows, digest "
            f"{there.digest[:12]}); choose another address, or replace it with --overwrite"
        )
    with tempfile.TemporaryDirectory(prefix="infosam-") as scratch:
        folder = Path(scratch) / "set"
        yield folder
        push(folder, out, progress, overwrite=overwrite)


def _writable(url: str) -> DatasetCard | None:
    """What lies at an address, after a look whether one may write there. Raises DataError."""
    system, root = file_system(url)
    there = _card_there(system, root, url)
    probe = f"{root}/.infosam-may-write"
    with telling(url):
        system.create_dir(root, recursive=True)
        with system.open_output_stream(probe) as stream:
            stream.write(b"may be removed")
        system.delete_file(probe)
    return there


def push(folder: Path, url: str, progress: Progress | None = None, *, overwrite: bool = False) -> bool:
    """Copies the data set in `folder` to `url` (s3://bucket/set, ...); False if the same lies there already.

    Every file is compared with its sum in the card before it is sent, those that lie there are not sent again, and
    `dataset.json`, which makes them a data set, comes last: a push that was stopped leaves what was there before.
    `progress` is called with (bytes sent, bytes in all). Raises DataError, also if a file would take the place of
    another data set's, which `overwrite` allows: who reads that meanwhile is told that it is damaged. Files that only
    the old data set had are removed last."""
    card = read_card(folder)
    system, root = file_system(url)
    there = _card_there(system, root, url)
    if there is not None and (there.domain, there.digest) == (card.domain, card.digest):
        return False
    sums = {} if there is None else {shard.name: shard.sha256 for shard in there.shards}
    missing = [shard for shard in card.shards if sums.get(shard.name) != shard.sha256]
    taken = [shard.name for shard in missing if shard.name in sums]
    if taken and not overwrite:
        raise DataError(
            f"{url}: holds another data set ({taken[0]} differs); choose another address, or replace it: --overwrite"
        )
    for shard in missing:
        _check(folder, shard)
    files = [folder / shard.name for shard in missing] + ([folder / card.moves] if card.moves else [])
    sizes = [file.stat().st_size for file in files]
    with telling(url):
        for number, file in enumerate(files):
            _send(system, file, f"{root}/{file.relative_to(folder).as_posix()}")
            if progress:
                progress(sum(sizes[: number + 1]), sum(sizes))
        _send(system, folder / CARD_NAME, f"{root}/{CARD_NAME}")
        old = sums.keys() | ({there.moves} if there and there.moves else set())
        for name in old - {card.moves, *(shard.name for shard in card.shards)}:  # or data/*.parquet would hold two sets
            if system.get_file_info(f"{root}/{name}").is_file:
                system.delete_file(f"{root}/{name}")
    return True


def _card_there(system: Any, root: str, url: str) -> DatasetCard | None:
    with telling(url):
        found = system.get_file_info(f"{root}/{CARD_NAME}")
    return remote_card(url) if found.is_file else None


def _check(folder: Path, shard: Shard) -> None:
    found = sha256_of_file(folder / shard.name)
    if shard.sha256 and found != shard.sha256:
        raise DataError(
            f"{folder / shard.name}: SHA-256 {found}, {CARD_NAME} says {shard.sha256}; it is damaged: import it again"
        )


def _send(system: Any, file: Path, path: str) -> None:
    system.create_dir(path.rpartition("/")[0], recursive=True)
    with file.open("rb") as source, system.open_output_stream(path) as stream:
        while chunk := source.read(CHUNK_BYTES):
            stream.write(chunk)
