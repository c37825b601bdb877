"""What a data set holds already, and what that means for rows that come to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infosam.data.card import DatasetCard, Split
from infosam.data.importing import NewRow
from infosam.data.manifest import problems_error
from infosam.data.masks import Unusable
from infosam.data.pairs import Listed
from infosam.data.pixels import PICTURE_ERRORS, open_picture, read_bytes
from infosam.data.rows import row_digest, set_digest
from infosam.data.shards import damaged, open_shard, row_tables
from infosam.data.store import decode_mask

DRAWN_FROM = 3  # images or groups; fewer cannot give some to val and test


@dataclass(frozen=True, kw_only=True)
class KnownRow:
    """A row without its picture."""

    id: str
    split: Split
    group: str | None
    image: str  # stored path of the picture
    source_sha256: str
    share: float  # of foreground

    def digest(self, mask: NDArray[np.bool_]) -> bytes:
        """The part of the data set's digest that this row gives, with its mask (H, W)."""
        return row_digest(self.id, self.split, self.group, mask, self.source_sha256)


def known_rows(card: DatasetCard) -> Iterator[KnownRow]:
    """All rows in order. Raises DataError if the data set is damaged."""
    columns = ["split", "group", "image.path", "fg_fraction", "source_sha256"]
    if not _names_sources(card):
        columns[2] = "image"
    for _, _, table in row_tables(card, columns):
        for row in table.to_pylist():
            yield KnownRow(
                id=row["id"],
                split=row["split"],
                group=row["group"],
                image=row["image"]["path"],
                source_sha256=row.get("source_sha256") or _sha256(row["image"]["bytes"]),
                share=row["fg_fraction"],
            )


def masks(card: DatasetCard) -> Iterator[NDArray[np.bool_]]:
    """The mask (H, W) of each row in order. Raises DataError if the data set is damaged."""
    for shard, _, table in row_tables(card, ["mask"]):
        for row_id, cell in zip(table["id"].to_pylist(), table["mask"], strict=True):
            try:
                yield decode_mask(cell["bytes"].as_py())
            except PICTURE_ERRORS as error:
                path = card.path / card.shards[shard].name
                raise damaged(path, f"row {row_id!r} cannot be decoded ({error})") from error


def check_digest(card: DatasetCard, digests: Sequence[bytes]) -> None:
    """Raises DataError if the rows are not those the card speaks of, so that no damage is signed anew.

    Files of version 1 do not name the picture files they come from, and some of those were turned upright."""
    if _names_sources(card) and set_digest(digests) != card.digest:
        raise damaged(card.path, "its rows are not those its card speaks of (digest differs)")


def _names_sources(card: DatasetCard) -> bool:
    return "source_sha256" in open_shard(card.path, card.shards[0]).schema_arrow.names


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Known:
    """A data set that rows come to. `settle` and `admit` are what `discover` and `write_pairs` ask."""

    def __init__(self, card: DatasetCard, split: Split | None) -> None:
        self._card = card
        self._split = split
        self._names_sources = _names_sources(card)
        self.schema: pa.Schema = open_shard(card.path, card.shards[0]).schema_arrow  # all files have the same columns
        self.rows = list(known_rows(card))
        self.digests = [row.digest(mask) for row, mask in zip(self.rows, masks(card), strict=True)]
        check_digest(card, self.digests)
        self._ids = {row.id: digest for row, digest in zip(self.rows, self.digests, strict=True)}
        self._pictures: dict[str, KnownRow] = {}
        self._groups: dict[str, Split] = {}
        for row in self.rows:
            self._pictures.setdefault(row.source_sha256, row)
            if row.group is not None:
                self._groups[row.group] = row.split
        self._paths = {row.image: row.source_sha256 for row in self.rows}
        self.added: list[KnownRow] = []
        self.skipped = 0
        self.notes: tuple[str, ...] = ()

    def settle(self, listed: Sequence[Listed]) -> Mapping[str, Split]:
        """Splits of all keys for which the source, the data set, or the user has one. Raises DataError with every
        image or group that would be in two splits, or an image in two groups."""
        problems: list[str] = []
        settled: dict[str, Split] = {}
        reasons: dict[str, str] = {}
        for pair in listed:
            for split, reason in self._places(pair, problems):
                if settled.setdefault(pair.key, split) != split:
                    problems.append(
                        f"{pair.row}: {reasons[pair.key]} but {reason}, and must be in one; "
                        "correct the split, or draw all anew with infosam data resplit afterwards"
                    )
                reasons.setdefault(pair.key, reason)
        if problems:
            raise problems_error(self._card.path, list(dict.fromkeys(problems)))
        open_keys = dict.fromkeys(pair.key for pair in listed if pair.key not in settled)
        few: Split | None = "train" if 0 < len(open_keys) < DRAWN_FROM else None
        if self._split is None and few:
            self.notes = (f"{len(open_keys)} new images (or groups) without a split go to train: too few to draw from",)
        chosen = self._split or few
        return settled | (dict.fromkeys(open_keys, chosen) if chosen else {})

    def _places(self, pair: Listed, problems: list[str]) -> Iterator[tuple[Split, str]]:
        """Every split that something is known to put a pair into, and why."""
        if pair.split:
            yield pair.split, f"the source has it in {pair.split}"
        if pair.group in self._groups:
            split = self._groups[pair.group]
            yield split, f"the data set has group {pair.group} in {split}"
        known = self._pictures.get(self._source_sha256(pair))
        if known is None:
            return
        yield known.split, f"the data set has its picture in {known.split} ({known.id})"
        if known.group != pair.group:
            problems.append(
                f"{pair.row}: {pair.image.name} has group {pair.group!r} here and {known.group!r} in the data set "
                f"({known.id}); give it the same group"
            )

    def _source_sha256(self, pair: Listed) -> str:
        """As the data set names it; empty for a file that cannot be opened, which the import tells of."""
        try:
            if not self._names_sources:
                return _sha256(open_picture(pair).upright)
            return _sha256(open_picture(pair).source if pair.image_content else read_bytes(pair.image, "image"))
        except Unusable:
            return ""

    def admit(self, given: NewRow) -> bytes | None:
        """The digest of a row that may come in, None for one that is in already. Gives it the path under which the data
        set knows its picture. Raises Unusable if its id is taken."""
        row, mask = given.row, given.mask
        assert mask is not None
        if not self._names_sources:
            row["source_sha256"] = _sha256(row["image"]["bytes"])
        new = KnownRow(
            id=row["id"],
            split=row["split"],
            group=row["group"],
            image=self._path(row["image"]["path"], row["source_sha256"]),
            source_sha256=row["source_sha256"],
            share=row["fg_fraction"],
        )
        digest = new.digest(mask)
        taken = self._ids.get(new.id)
        if taken == digest:
            self.skipped += 1
            return None
        if taken is not None:
            raise Unusable(f"id {new.id!r} is in the data set already, with another picture or mask; rename the file")
        row["image"]["path"] = new.image
        self.added.append(new)
        return digest

    def _path(self, path: str, source_sha256: str) -> str:
        """Rows of one path are one picture, so another picture needs another one."""
        known = self._pictures.get(source_sha256)
        if known is not None:
            return known.image
        return path if self._paths.get(path, source_sha256) == source_sha256 else f"{source_sha256[:8]}/{path}"
