"""Imports a user's images and masks as a new data set: a folder with Parquet files and a card (see `schema`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infosam.data.card import SPLITS, DatasetCard, Split, check_domain, foreign, read_card, write_card
from infosam.data.manifest import Found, Review, Splitting, discover
from infosam.data.pairs import Pair, ReadOptions
from infosam.data.pixels import Unusable, is_small, open_pair
from infosam.data.rows import row_digest, row_of, set_digest, with_ids
from infosam.data.shards import ShardWriter
from infosam.data.staging import put_back, put_in_place, staged
from infosam.data.threads import in_order
from infosam.errors import DataError

Progress = Callable[[int, int], None]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class NewRow:
    """A row that may come into a data set."""

    row: Row  # the columns of `schema`
    digest: bytes
    mask: NDArray[np.bool_] | None = None  # (H, W); None if its pair was opened in another process


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What the files of a pair hold: rows, or the reason why they cannot be used."""

    pair: Pair
    rows: tuple[NewRow, ...] = ()
    problem: str | None = None


Opener = Callable[[Found, str], Iterator[Opened]]
"""Opens all pairs for a domain, in their order."""


def open_here(found: Found, domain: str) -> Iterator[Opened]:
    """By a few threads of this process, or one if the pictures are tiny."""

    def one(named: tuple[Pair, str]) -> Opened:
        return open_one(found, *named, domain)

    yield from in_order(one, with_ids(found), small=lambda named: is_small(named[0]))


def open_one(found: Found, pair: Pair, row_id: str, domain: str) -> Opened:
    """Checks the two files of a pair and makes its rows."""
    try:
        contents = open_pair(pair, found.options.choice)
    except Unusable as problem:
        return Opened(pair=pair, problem=str(problem))
    rows = []
    for number, content in enumerate(contents):
        part = f"__{number}" if len(contents) > 1 else ""
        row = row_of(row_id + part, pair, content, root=found.root, domain=domain, part=part)
        digest = row_digest(row["id"], row["split"], row["group"], content.mask, row["source_sha256"])
        rows.append(NewRow(row=row, digest=digest, mask=content.mask))
    return Opened(pair=pair, rows=tuple(rows))


def import_dataset(
    source: Path,
    *,
    domain: str,
    out: Path,
    seed: int = 0,
    options: ReadOptions | None = None,
    splitting: Splitting | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    allow_empty: bool = False,
    opener: Opener = open_here,
) -> DatasetCard:
    """Checks every image and mask of `source` and writes them as a data set to `out`, completely or not at all.

    `source` is anything `manifest.discover` understands; `seed` draws the splits it lacks, unless `splitting` says
    more; `opener` is who opens the files; `progress` is called with (pairs done, pairs in all). Image files are kept
    byte by byte, except that an EXIF rotation is applied (then PNG). If `out` already holds this very data set, nothing
    is written and the card says so. Raises DataError with every bad file, or if `out` is something else; `overwrite`
    replaces another data set, never a folder of other things."""
    check_domain(domain)
    put_back(out)
    _existing(source, out)
    found = discover(source, options, splitting or Splitting(seed=seed))
    with staged(out) as folder:
        with ShardWriter(folder) as writer:
            amount = len(found.pairs)
            opened = opener(found, domain)
            written = write_pairs(source, opened, writer, amount=amount, allow_empty=allow_empty, progress=progress)
            shards = writer.finish()
        card = DatasetCard(
            domain=domain,
            digest=set_digest(written.digests),
            counts={split: written.counts[split] for split in SPLITS},
            path=out,
            notes=found.notes,
            shards=shards,
        )
        existing = _existing(source, out)  # asked again: another import may have been faster
        if existing is not None and (existing.domain, existing.digest) == (domain, card.digest):
            return replace(existing, written=False)
        if existing is not None and not overwrite:
            raise DataError(
                f"{out}: already holds another data set (domain {existing.domain}, "
                f"{sum(existing.counts.values())} rows, digest {existing.digest[:12]}); "
                "choose another --out, or replace it with --overwrite"
            )
        if existing is not None and (others := foreign(existing)):
            raise DataError(f"{out}: holds other files, too, such as {others[0]}; move them before it is replaced")
        write_card(folder, card)
        put_in_place(folder, out, replace=existing is not None)
    return card


@dataclass
class Written:
    """The rows that were written."""

    digests: list[bytes] = field(default_factory=list)
    counts: Counter[Split] = field(default_factory=Counter)


def write_pairs(
    source: Path,
    opened: Iterator[Opened],
    writer: ShardWriter,
    *,
    amount: int,
    allow_empty: bool,
    progress: Progress | None,
    admit: Callable[[NewRow], bytes | None] | None = None,
) -> Written:
    """Hands the rows of `amount` pairs, `opened` in their order, to `writer`. Raises DataError with every bad pair.

    `admit` gives the digest of a row, which it may change; None keeps it out, Unusable refuses its pair."""
    review = Review(allow_empty=allow_empty)
    written = Written()
    for done, one in enumerate(opened, start=1):
        try:
            if one.problem is not None:
                raise Unusable(one.problem)
            review.add(one.pair, empty=not any(new.row["fg_fraction"] for new in one.rows))
            for new in one.rows:
                digest = new.digest if admit is None else admit(new)
                if digest is not None and not review.problems:
                    writer.add(new.row)  # after a problem nothing will come of it: only go on looking
                    written.digests.append(digest)
                    written.counts[one.pair.split] += 1
        except Unusable as problem:
            review.refuse(one.pair, str(problem))
        if progress:
            progress(done, amount)
    review.finish(source)
    return written


def _existing(source: Path, out: Path) -> DatasetCard | None:
    """The data set already at `out`, None if there is nothing. Raises DataError if something else is there."""
    if out.is_symlink() or out.exists():
        if out.is_dir() and not any(out.iterdir()):
            return None
        if out.is_dir() and source.exists() and out.samefile(source):
            raise DataError(f"{out}: --out is the source itself; choose another folder")
        try:
            return read_card(out)
        except DataError:
            raise DataError(
                f"{out}: already exists and is not a data set of infosam, so it is left alone; choose another --out"
            ) from None
    return None
