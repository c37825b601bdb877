"""The Parquet files of a data set: written one after the other, and read without their pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from infosam.data.card import DatasetCard, Shard
from infosam.data.schema import ADDED_LATER, ROW_GROUP_MIB, ROW_GROUP_ROWS, SHARD_MIB, parquet_schema
from infosam.download import sha256_of_file
from infosam.errors import DataError

PIECE_MIB = 8
MOVES_SCHEMA = pa.schema([("id", pa.string()), ("split", pa.string()), ("group", pa.string())])


class ShardWriter:
    """Writes rows into `data/part-00000.parquet` and so on below a folder; in memory is one row group.

    Nothing has its final name before `finish`; left without it, everything written is removed."""

    def __init__(self, folder: Path, schema: pa.Schema | None = None, *, first: int = 0) -> None:
        self._folder = folder
        self._schema = parquet_schema() if schema is None else schema
        self._first = first
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []  # rows of the group that is begun, in Arrow's form
        self._piece_bytes = self._group_bytes = self._group_rows = self._shard_bytes = self._shard_rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._written: list[tuple[Path, int]] = []  # file under its passing name, rows

    def __enter__(self) -> Self:
        (self._folder / "data").mkdir(exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
        for path, _rows in self._written:
            path.unlink(missing_ok=True)

    def add(self, row: dict[str, Any]) -> None:
        """A row as `rows.row_of` makes it. Raises OSError."""
        self._rows.append(row)
        self._group_rows += 1
        self._piece_bytes += len(row["image"]["bytes"]) + len(row["mask"]["bytes"])
        if self._piece_bytes > PIECE_MIB << 20:
            self._convert()
        if self._group_rows >= ROW_GROUP_ROWS or self._group_bytes + self._piece_bytes > ROW_GROUP_MIB << 20:
            self._write_group()
            if self._shard_bytes > SHARD_MIB << 20:
                self._close_shard()

    def finish(self) -> tuple[Shard, ...]:
        """Gives all files their names; returns them in order. Raises OSError."""
        if self._group_rows or not self._written:
            self._write_group()
        self._close_shard()
        shards = []
        for number, (path, rows) in enumerate(self._written, start=self._first):
            name = f"data/part-{number:05}.parquet"
            shards.append(Shard(name=name, rows=rows, sha256=sha256_of_file(path)))
            os.replace(path, self._folder / name)
        self._written = []
        return tuple(shards)

    def _convert(self) -> None:
        """A few rows at a time: Arrow doubles its buffers as they grow, and would hold three times a whole group."""
        self._tables.append(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._group_bytes += self._piece_bytes
        self._rows, self._piece_bytes = [], 0

    def _write_group(self) -> None:
        if self._writer is None:
            path = self._folder / "data" / f".part-{self._first + len(self._written):05}.partial"
            self._written.append((path, 0))
            self._writer = pq.ParquetWriter(
                path,
                self._schema,
                compression="none",
                use_dictionary=["domain", "split"],
                write_statistics=["id", "split"],
            )
        self._convert()
        self._writer.write_table(pa.concat_tables(self._tables))
        self._shard_bytes += self._group_bytes
        self._shard_rows += self._group_rows
        self._tables, self._group_bytes, self._group_rows = [], 0, 0

    def _close_shard(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        path = self._written[-1][0]
        with path.open("rb") as file:
            os.fsync(file.fileno())  # the card must not outlive what it names
        self._written[-1] = (path, self._shard_rows)
        self._writer, self._shard_bytes, self._shard_rows = None, 0, 0


def write_moves(path: Path, rows: Sequence[dict[str, str | None]]) -> None:
    """The splits and groups that count from now on, one row for each of the data set in its order. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=MOVES_SCHEMA), partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def open_shard(folder: Path, shard: Shard) -> pq.ParquetFile:
    """A file of a data set, mapped into memory. Raises DataError if it is damaged."""
    path = folder / shard.name
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, f"it cannot be read ({error})") from error
    missing = set(parquet_schema().names) - set(file.schema_arrow.names) - ADDED_LATER
    if missing:
        raise damaged(path, f"it lacks the columns {', '.join(sorted(missing))}")
    return file


def row_tables(card: DatasetCard, columns: Sequence[str]) -> Iterator[tuple[int, int, pa.Table]]:
    """(number of the shard, row group, its rows) of a whole data set, of `columns` and always `id`.

    Splits and groups are those that count, also after a re-split. Columns that a file lacks are left out. Raises
    DataError for damaged files."""
    moves = _moves(card)
    start = 0
    for number, shard in enumerate(card.shards):
        file = open_shard(card.path, shard)
        there = [name for name in {*columns, "id"} if name.partition(".")[0] in file.schema_arrow.names]
        try:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=there, use_threads=False)
                if moves is not None:
                    table = _moved(card, table, moves.slice(start, table.num_rows))
                start += table.num_rows
                yield number, group, table
        except (pa.ArrowException, OSError, KeyError) as error:
            raise damaged(card.path / shard.name, f"it cannot be read ({error})") from error


def damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: {reason}; import the data set again")


def _moves(card: DatasetCard) -> pa.Table | None:
    if card.moves is None:
        return None
    path = card.path / card.moves
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=MOVES_SCHEMA.names, use_threads=False)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise damaged(path, f"it cannot be read ({error})") from error


def _moved(card: DatasetCard, table: pa.Table, moves: pa.Table) -> pa.Table:
    if moves["id"].to_pylist() != table["id"].to_pylist():
        raise damaged(card.path / str(card.moves), "its rows are not those of the data set")
    for name in ("split", "group"):
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, moves[name].combine_chunks())
    return table
