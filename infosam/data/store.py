"""Imports a user's images and masks into one Parquet file, and reads them back one by one.

A data set on disk is a folder with `data.parquet` and `dataset.json` (see `schema`), complete or not there at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from infosam.data.card import CARD_NAME, SPLITS, DatasetCard, Split, check_domain, read_card, write_card
from infosam.data.manifest import Found, Review, Splitting, discover
from infosam.data.pairs import Pair, ReadOptions
from infosam.data.pixels import PICTURE_ERRORS, PairContent, Unusable, open_pair
from infosam.data.schema import PARQUET_NAME, ROW_GROUP_ROWS, parquet_schema
from infosam.data.transforms import to_rgb
from infosam.errors import DataError

__all__ = ["DatasetCard", "Sample", "Store", "import_dataset", "open_dataset"]

ROW_GROUP_MIB = 128  # huge pictures make smaller row groups, so that reading one stays cheap
READ_CACHE_MIB = 256


@dataclass(frozen=True)
class Sample:
    """One image with its mask at original size."""

    id: str
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    mask: NDArray[np.bool_]  # (H, W)


def import_dataset(
    source: Path,
    *,
    domain: str,
    out: Path,
    seed: int = 0,
    options: ReadOptions | None = None,
    splitting: Splitting | None = None,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
    allow_empty: bool = False,
) -> DatasetCard:
    """Checks every image and mask of `source` and writes them as a data set to `out`, completely or not at all.

    `source` is anything `manifest.discover` understands; `seed` draws the splits it lacks, unless `splitting` says
    more; `progress` is called with (pairs done, pairs in all). Image files are kept byte by byte, except that an EXIF
    rotation is applied (then PNG). If `out` already holds this very data set, nothing is written and the card says so.
    Raises DataError with every bad file, or if `out` is something else; `overwrite` replaces another data set, never a
    folder of other things."""
    check_domain(domain)
    existing = _existing(source, out)
    found = discover(source, options, splitting or Splitting(seed=seed))
    with staged(out) as folder:
        digest, counts = _write_rows(source, folder / PARQUET_NAME, found, domain, allow_empty, progress)
        card = DatasetCard(
            domain=domain,
            digest=digest,
            counts={split: counts[split] for split in SPLITS},
            path=out,
            notes=found.notes,
        )
        if existing is not None and (existing.domain, existing.digest) == (domain, digest):
            return replace(existing, written=False)
        if existing is not None and not overwrite:
            raise DataError(
                f"{out}: already holds another data set (domain {existing.domain}, "
                f"{sum(existing.counts.values())} rows, digest {existing.digest[:12]}); "
                "choose another --out, or replace it with --overwrite"
            )
        write_card(folder, card)
        put_in_place(folder, out)
    return card


def open_dataset(folder: Path) -> Store:
    """An imported data set. Raises DataError if `folder` is none, or damaged."""
    return Store(folder)


class Store:
    """Rows of an imported data set, read from a memory-mapped Parquet file one row group at a time.

    Can be pickled and used in forked workers: the file is opened anew there, caches are left behind."""

    def __init__(self, folder: Path) -> None:
        self.card = read_card(folder)
        self._folder = folder
        self._file: pq.ParquetFile | None = None
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()
        self._rows: dict[str, list[tuple[int, int, str]]] = {split: [] for split in SPLITS}  # group, offset, id
        self._images: dict[str, list[str]] = {split: [] for split in SPLITS}  # path of the image of each row
        self._index()

    def rows(self, split: Split) -> int:
        """Number of rows of a split; 0 if it is absent."""
        return len(self._rows[split])

    def ids(self, split: Split) -> list[str]:
        """Ids of a split in order."""
        return [row_id for _, _, row_id in self._rows[split]]

    def images(self, split: Split) -> list[tuple[int, ...]]:
        """Rows of a split that show the same image, in order of first appearance."""
        rows: dict[str, list[int]] = {}
        for index, image in enumerate(self._images[split]):
            rows.setdefault(image, []).append(index)
        return [tuple(found) for found in rows.values()]

    def read(self, split: Split, index: int) -> Sample:
        """Row `index` of a split, decoded. Raises DataError for damaged content, IndexError out of range."""
        mask = self.truth(split, index)
        group, offset, row_id = self._rows[split][index]
        with self._decoding(row_id), Image.open(io.BytesIO(_bytes_at(self._group(group), "image", offset))) as picture:
            rgb = to_rgb(picture)
        if mask.shape != rgb.shape[:2]:
            raise self._damaged(f"row {row_id!r} has an image of {rgb.shape[:2]} and a mask of {mask.shape} pixels")
        return Sample(id=row_id, image=rgb, mask=mask)

    def truth(self, split: Split, index: int) -> NDArray[np.bool_]:
        """The mask (H, W) of row `index` of a split, without its image. Raises as `read`."""
        group, offset, row_id = self._rows[split][index]
        with self._decoding(row_id), Image.open(io.BytesIO(_bytes_at(self._group(group), "mask", offset))) as drawn:
            return np.asarray(drawn) > 127

    @contextmanager
    def _decoding(self, row_id: str) -> Iterator[None]:
        try:
            yield
        except PICTURE_ERRORS as error:
            raise self._damaged(f"row {row_id!r} cannot be decoded ({error})") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_groups": OrderedDict()}

    def _index(self) -> None:
        """Reads where each row lies; the pictures stay on disk."""
        columns = ["split", "id", "image.path"]
        try:
            file = self._open()
            missing = set(parquet_schema().names) - set(file.schema_arrow.names)
            if missing:
                raise self._damaged(f"it lacks the columns {', '.join(sorted(missing))}")
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns, use_threads=False)
                for offset, row in enumerate(table.to_pylist()):
                    self._rows[row["split"]].append((group, offset, row["id"]))
                    self._images[row["split"]].append(row["image"]["path"])
        except (pa.ArrowException, OSError, KeyError) as error:
            raise self._damaged(f"it cannot be read ({error})") from error
        counts = {split: self.rows(split) for split in SPLITS}
        if counts != self.card.counts:
            raise self._damaged(f"it holds {counts} rows, {CARD_NAME} promises {self.card.counts}")

    def _open(self) -> pq.ParquetFile:
        if self._file is None:
            self._file = pq.ParquetFile(self._folder / PARQUET_NAME, memory_map=True)
        return self._file

    def _group(self, group: int) -> pa.Table:
        """A row group; the last ones used stay in memory, up to READ_CACHE_MIB."""
        if group in self._groups:
            self._groups.move_to_end(group)
            return self._groups[group]
        try:  # no threads: Arrow's pool does not survive a fork
            table = self._open().read_row_group(group, columns=["image", "mask"], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(f"row group {group} cannot be read ({error})") from error
        self._groups[group] = table
        while len(self._groups) > 1 and sum(kept.nbytes for kept in self._groups.values()) > READ_CACHE_MIB << 20:
            self._groups.popitem(last=False)
        return table

    def _damaged(self, reason: str) -> DataError:
        return DataError(f"{self._folder / PARQUET_NAME}: {reason}; import the data set again")


def _bytes_at(table: pa.Table, column: str, offset: int) -> bytes:
    content: bytes | None = table[column][offset]["bytes"].as_py()
    if content is None:
        raise ValueError(f"{column} has no content")
    return content


def _write_rows(
    source: Path,
    path: Path,
    found: Found,
    domain: str,
    allow_empty: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[str, Counter[Split]]:
    """Checks all pairs and writes them in row groups; returns the digest and the rows of each split. Raises DataError
    with every bad pair."""
    review = Review(allow_empty=allow_empty)
    counts: Counter[Split] = Counter()
    rows: list[dict[str, Any]] = []
    row_digests: list[bytes] = []
    size = 0
    with pq.ParquetWriter(
        path, parquet_schema(), compression="none", use_dictionary=["domain", "split"], write_statistics=["id", "split"]
    ) as writer:
        for done, (pair, row_id) in enumerate(zip(found.pairs, _ids(found), strict=True), start=1):
            try:
                contents = open_pair(pair, found.options.choice)
                review.add(pair, contents)
            except Unusable as problem:
                review.refuse(pair, str(problem))
            else:
                for number, content in enumerate(contents):
                    part = f"__{number}" if len(contents) > 1 else ""
                    row_digests.append(_row_digest(row_id + part, pair, content))
                    rows.append(_row(row_id + part, pair, content, found.root, domain, part))
                    size += len(content.image)
                counts[pair.split] += len(contents)
            if review.problems:
                rows, size = [], 0  # nothing will come of it: go on looking, but keep memory small
            elif len(rows) >= ROW_GROUP_ROWS or size > ROW_GROUP_MIB << 20 or done == len(found.pairs):
                writer.write_table(pa.Table.from_pylist(rows, schema=parquet_schema()))
                rows, size = [], 0
            if progress:
                progress(done, len(found.pairs))
        review.finish(source)
    return hashlib.sha256(b"".join(sorted(row_digests))).hexdigest(), counts


def _row(row_id: str, pair: Pair, content: PairContent, root: Path, domain: str, part: str) -> dict[str, Any]:
    return {
        "image": {"bytes": content.image, "path": _inside(root, pair.image)},
        "mask": {"bytes": content.mask_png(), "path": _inside(root, pair.mask) + part},
        "id": row_id,
        "domain": domain,
        "split": pair.split,
        "group": pair.group,
        "width": content.width,
        "height": content.height,
        "fg_fraction": content.fg_fraction,
    }


def _row_digest(row_id: str, pair: Pair, content: PairContent) -> bytes:
    """Of what was given, not of what was encoded: another PNG library must not change it."""
    digest = hashlib.sha256(json.dumps([row_id, pair.split, pair.group, *content.mask.shape]).encode())
    digest.update(hashlib.sha256(content.source_image).digest())
    digest.update(np.packbits(content.mask).tobytes())
    return digest.digest()


def _ids(found: Found) -> list[str]:
    """A short unique name per row: the image's, else the mask's, else both paths."""
    for ids in ([pair.image.stem for pair in found.pairs], [pair.mask.stem for pair in found.pairs]):
        if len(set(ids)) == len(ids):
            return ids
    ids, seen = [], Counter[str]()
    for pair in found.pairs:
        row_id = "__".join(_inside(found.root, path).replace("/", "_") for path in (pair.image, pair.mask))
        seen[row_id] += 1
        ids.append(row_id if seen[row_id] == 1 else f"{row_id}__{seen[row_id]}")
    return ids


def _inside(root: Path, path: Path) -> str:
    """A path as it is stored: relative to the source, so nothing of this machine travels with the data."""
    return Path(os.path.relpath(path, root)).as_posix()


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


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into. Afterwards it is gone, and so are parents made for nothing."""
    parents = [parent for parent in out.absolute().parents if not parent.exists()]
    folder = out.absolute().parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not out.exists():
            for parent in parents:
                with suppress(OSError):
                    parent.rmdir()


def put_in_place(folder: Path, out: Path) -> None:
    """Renames the finished folder to `out`; an older data set there is moved aside first and removed last."""
    aside = folder.with_suffix(".replaced")
    replacing = out.exists() and any(out.iterdir())
    if replacing:
        out.rename(aside)
    try:
        folder.rename(out)
    except OSError:
        if replacing:
            aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)
