"""Reads the rows of a data set one by one. `importing` makes one, `growing` changes one."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from infosam.data.card import CARD_NAME, SPLITS, DatasetCard, Split, read_card
from infosam.data.importing import import_dataset
from infosam.data.pixels import PICTURE_ERRORS
from infosam.data.rgb import to_rgb
from infosam.data.shards import damaged, open_shard, row_tables
from infosam.errors import DataError

__all__ = ["DatasetCard", "Sample", "Store", "import_dataset", "open_dataset"]

READ_CACHE_MIB = 256


@dataclass(frozen=True)
class Sample:
    """One image with its mask at original size."""

    id: str
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    mask: NDArray[np.bool_]  # (H, W)


def open_dataset(folder: Path) -> Store:
    """An imported data set. Raises DataError if `folder` is none, or damaged."""
    return Store(folder)


class _Place(NamedTuple):
    """Where a row lies."""

    shard: int
    group: int
    offset: int
    id: str


class Store:
    """Rows of an imported data set, read from memory-mapped Parquet files one row group at a time.

    Can be pickled and used in forked workers: the files are opened anew there, caches are left behind."""

    def __init__(self, folder: Path) -> None:
        self.card = read_card(folder)
        self._files: dict[int, pq.ParquetFile] = {}
        self._groups: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._rows: dict[str, list[_Place]] = {split: [] for split in SPLITS}
        self._images: dict[str, list[str]] = {split: [] for split in SPLITS}  # path of the image of each row
        self._named: dict[str, list[str | None]] = {split: [] for split in SPLITS}  # group of each row
        self._index()

    def rows(self, split: Split) -> int:
        """Number of rows of a split; 0 if it is absent."""
        return len(self._rows[split])

    def ids(self, split: Split) -> list[str]:
        """Ids of a split in order."""
        return [place.id for place in self._rows[split]]

    def order(self, split: Split) -> str:
        """A digest of the ids in order: equal data sets may hold their rows in another one."""
        return hashlib.sha256("\n".join(self.ids(split)).encode()).hexdigest()[:16]

    def images(self, split: Split) -> list[tuple[int, ...]]:
        """Rows of a split that show the same image, in order of first appearance."""
        rows: dict[str, list[int]] = {}
        for index, image in enumerate(self._images[split]):
            rows.setdefault(image, []).append(index)
        return [tuple(found) for found in rows.values()]

    def group(self, split: Split, index: int) -> str | None:
        """What row `index` of a split belongs together with, such as the frames of one video; None: nothing is known.

        Raises IndexError out of range."""
        return self._named[split][index]

    def read(self, split: Split, index: int) -> Sample:
        """Row `index` of a split, decoded. Raises DataError for damaged content, IndexError out of range."""
        mask = self.truth(split, index)
        place = self._rows[split][index]
        with self._decoding(place), Image.open(io.BytesIO(self._bytes(place, "image"))) as picture:
            rgb = to_rgb(picture)
        if mask.shape != rgb.shape[:2]:
            raise self._damaged(place, f"has an image of {rgb.shape[:2]} and a mask of {mask.shape} pixels")
        return Sample(id=place.id, image=rgb, mask=mask)

    def truth(self, split: Split, index: int) -> NDArray[np.bool_]:
        """The mask (H, W) of row `index` of a split, without its image. Raises as `read`."""
        place = self._rows[split][index]
        with self._decoding(place):
            return decode_mask(self._bytes(place, "mask"))

    @contextmanager
    def _decoding(self, place: _Place) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except PICTURE_ERRORS as error:
            raise self._damaged(place, f"cannot be decoded ({error})") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_groups": OrderedDict()}

    def _index(self) -> None:
        """Reads where each row lies; the pictures stay on disk."""
        for shard, group, table in row_tables(self.card, ["split", "image.path", "group"]):
            for offset, row in enumerate(table.to_pylist()):
                if row["split"] not in self._rows:
                    path = self.card.path / self.card.shards[shard].name
                    raise damaged(path, f"row {row['id']!r} has the split {row['split']!r}")
                self._rows[row["split"]].append(_Place(shard, group, offset, row["id"]))
                self._images[row["split"]].append(row["image"]["path"])
                self._named[row["split"]].append(row.get("group"))
        counts = {split: self.rows(split) for split in SPLITS}
        if counts != self.card.counts:
            raise damaged(self.card.path, f"it holds {counts} rows, {CARD_NAME} promises {self.card.counts}")

    def _bytes(self, place: _Place, column: str) -> bytes:
        content: bytes | None = self._group(place.shard, place.group)[column][place.offset]["bytes"].as_py()
        if content is None:
            raise self._damaged(place, f"has no {column}")
        return content

    def _group(self, shard: int, group: int) -> pa.Table:
        """A row group; the last ones used stay in memory, up to READ_CACHE_MIB."""
        if (shard, group) in self._groups:
            self._groups.move_to_end((shard, group))
            return self._groups[shard, group]
        if shard not in self._files:
            self._files[shard] = open_shard(self.card.path, self.card.shards[shard])
        try:  # no threads: Arrow's pool does not survive a fork
            table = self._files[shard].read_row_group(group, columns=["image", "mask"], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            path = self.card.path / self.card.shards[shard].name
            raise damaged(path, f"row group {group} cannot be read ({error})") from error
        self._groups[shard, group] = table
        while len(self._groups) > 1 and sum(kept.nbytes for kept in self._groups.values()) > READ_CACHE_MIB << 20:
            self._groups.popitem(last=False)
        return table

    def _damaged(self, place: _Place, reason: str) -> DataError:
        return damaged(self.card.path / self.card.shards[place.shard].name, f"row {place.id!r} {reason}")


def decode_mask(content: bytes) -> NDArray[np.bool_]:
    """A stored mask (H, W). Raises one of PICTURE_ERRORS."""
    with Image.open(io.BytesIO(content)) as drawn:
        return np.asarray(drawn) > 127
