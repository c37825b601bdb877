"""Adds rows to a data set, or draws its splits anew, without touching the pictures it holds.

What is there stays as it is: new files are written beside it, then the card that names them replaces the old one in
one step. Whoever is stopped before that leaves the old data set, and files that the next call removes."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from infosam.data.card import (
    OLD_SHARD,
    OURS,
    SPLITS,
    DatasetCard,
    Shard,
    Split,
    read_card,
    write_card,
)
from infosam.data.importing import Progress, open_here, write_pairs
from infosam.data.known import Known, KnownRow, check_digest, known_rows, masks
from infosam.data.manifest import Splitting, discover, grouped, problems_error
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.readers.contract import Listing
from infosam.data.rows import set_digest
from infosam.data.shards import ShardWriter, write_moves
from infosam.data.splits import complete_splits, united
from infosam.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Grown:
    """What became of a data set."""

    card: DatasetCard  # `written` is False if there was nothing to do
    added: int = 0
    skipped: int = 0  # rows that were in it already
    notes: tuple[str, ...] = ()  # what was decided this time


def append(
    source: Path,
    to: Path,
    *,
    options: ReadOptions | None = None,
    splitting: Splitting | None = None,
    split: Split | None = None,
    allow_empty: bool = False,
    progress: Progress | None = None,
) -> Grown:
    """Checks every image and mask of `source` as an import does and adds them to the data set `to`, all or none.

    Rows that are in it already are skipped. Splits of the source are taken as given; images and groups that the data
    set knows go where they are; the rest goes to `split`, or is drawn. Raises DataError with every bad file, for ids
    that are taken by other content, and for an image or group that would be in two splits."""
    with _changing(to) as card:
        known = Known(card, split)
        found = discover(source, options, splitting, settled=known.settle)
        with ShardWriter(to, known.schema, first=len(card.shards)) as writer:
            written = write_pairs(
                source,
                open_here(found, card.domain),
                writer,
                amount=len(found.pairs),
                allow_empty=allow_empty,
                progress=progress,
                admit=known.admit,
            )
            notes = (*known.notes, *found.notes)
            if not written.digests:
                return Grown(card=replace(card, written=False), skipped=known.skipped, notes=notes)
            shards = writer.finish()
        digest = set_digest([*known.digests, *written.digests])
        changed = replace(
            card,
            digest=digest,
            counts={name: card.counts[name] + written.counts[name] for name in SPLITS},
            notes=(*card.notes, *notes),
            shards=(*_renamed(to, card.shards), *shards),
            moves=_moves(to, digest, [*known.rows, *known.added]) if card.moves else None,
        )
        write_card(to, changed)
        return Grown(card=changed, added=len(written.digests), skipped=known.skipped, notes=notes)


def resplit(folder: Path, *, seed: int = 0, group: str | None = None, stratify: bool = False) -> Grown:
    """Draws all splits of a data set anew: 15 % of the groups, or images without one, for val and for test each.

    `group` is a pattern over the paths of the images with one part in brackets, and from then on counts instead of the
    groups of the import. Equal pictures stay together in any case. Raises DataError if the pattern does not fit, an
    image would be in two groups, or there are too few images."""
    with _changing(folder) as card:
        rows = list(known_rows(card))
        groups = _groups(folder, rows, group)
        keys = _united(rows, groups)
        shares: dict[str, float] = {}
        for key, row in zip(keys, rows, strict=True):
            shares[key] = max(row.share, shares.get(key, 0.0))
        splits, drawn = complete_splits(folder, dict.fromkeys(keys), seed=seed, shares=shares if stratify else None)
        moved = [replace(row, split=splits[key], group=name) for row, key, name in zip(rows, keys, groups, strict=True)]
        digest = _redigested(card, rows, moved)
        if digest == card.digest:
            return Grown(card=replace(card, written=False))
        counts = Counter(row.split for row in moved)
        notes = tuple(f"re-split: {note}" for note in drawn)
        changed = replace(
            card,
            digest=digest,
            counts={name: counts[name] for name in SPLITS},
            notes=(*(note for note in card.notes if not note.startswith("re-split: ")), *notes),
            moves=_moves(folder, digest, moved),
        )
        write_card(folder, changed)
        return Grown(card=changed, notes=notes)


def _redigested(card: DatasetCard, rows: list[KnownRow], moved: list[KnownRow]) -> str:
    """The digest with other splits and groups; that of the present ones is checked on the way."""
    before, after = [], []
    for mask, row, new in zip(masks(card), rows, moved, strict=True):
        before.append(row.digest(mask))
        after.append(new.digest(mask))
    check_digest(card, before)
    return set_digest(after)


@contextmanager
def _changing(folder: Path) -> Iterator[DatasetCard]:
    """The card of a data set that nobody else changes meanwhile. Afterwards files that its card does not name are gone.

    The lock is the system's, so it goes with the process that holds it, however that ends."""
    read_card(folder)
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                card = read_card(folder)
                _sweep(card)
                yield card
            finally:
                _sweep(read_card(folder))
        finally:
            os.close(handle)
    except BlockingIOError:
        raise DataError(f"{folder}: another command is changing this data set; wait for it") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be changed ({error.strerror or error}); nothing was changed") from error


def _sweep(card: DatasetCard) -> None:
    """Removes files of ours that the card does not name: left by a command that was stopped, or replaced."""
    named = {card.moves, *(shard.name for shard in card.shards)}
    for path in (*card.path.glob("*.parquet"), *card.path.glob(".*.partial"), *card.path.glob("data/*")):
        name = path.relative_to(card.path).as_posix()
        if name not in named and any(pattern.fullmatch(name) for pattern in OURS):
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):
        (card.path / "data").rmdir()  # only if nothing is in it


def _renamed(folder: Path, shards: tuple[Shard, ...]) -> tuple[Shard, ...]:
    """The file of a data set of version 1 under a name beside the new ones, so that one pattern finds them all."""
    if shards[0].name != OLD_SHARD:
        return shards
    name = "data/part-00000.parquet"
    try:
        (folder / name).hardlink_to(folder / OLD_SHARD)
    except OSError:
        return shards  # a disk without links: it is found under its old name
    return (replace(shards[0], name=name), *shards[1:])


def _moves(folder: Path, digest: str, rows: list[KnownRow]) -> str:
    """Writes the splits and groups of all rows; returns the name of the file."""
    name = f"splits-{digest[:8]}.parquet"
    write_moves(folder / name, [{"id": row.id, "split": row.split, "group": row.group} for row in rows])
    return name


def _groups(folder: Path, rows: list[KnownRow], group: str | None) -> list[str | None]:
    """The group of each row, by a pattern if there is one."""
    if group is None:
        return [row.group for row in rows]
    listed = [
        Listed(image_name=name, mask_name=name, split=None, row=f"row {row.id}")
        for row in rows
        for name in [str(folder / row.image)]
    ]
    problems: list[str] = []
    found = grouped(Listing(root=folder, listed=listed), group, problems)
    if problems:
        raise problems_error(folder, problems)
    return [pair.group for pair in found]


def _united(rows: list[KnownRow], groups: list[str | None]) -> list[str]:
    """One key for all rows that must stay together: of one group, or of one picture under whatever name."""
    pairs = [
        (f"image {row.image}" if name is None else f"group {name}", f"picture {row.source_sha256}")
        for row, name in zip(rows, groups, strict=True)
    ]
    return united(pairs)
