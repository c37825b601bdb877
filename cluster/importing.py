"""Opens and checks the pairs of an import on the machines of a cluster, by Ray Data, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from infosam.data.importing import NewRow, Opened, open_one
from infosam.data.rows import namer, with_ids
from infosam.data.schema import parquet_schema

if TYPE_CHECKING:
    import ray

    from infosam.data.manifest import Found, Pair

TOGETHER = 16
"""Pairs that are opened before their rows travel on. One by one where each object repeats its image: a column of such a
table holds at most 2 GiB."""
PAIRS_PER_BLOCK = 64
ROW = parquet_schema().remove_metadata()
WIRE = pa.schema(
    [pa.field("pair", pa.int64()), pa.field("problem", pa.string()), pa.field("digest", pa.binary()), *ROW]
)
"""What travels from the machines: a row for each of the data set, or one with the problem of a pair."""


@dataclass(frozen=True, kw_only=True)
class ClusterOpener:
    """An `infosam.data.importing.Opener`. Needs a connected Ray; all its machines see the source under one path.

    Rows come in the order of the pairs, and Ray Data opens no more than fit into the object store while they are
    waited for. `workers` processes take `cpus_per_worker` cores each."""

    workers: int
    cpus_per_worker: float = 1.0

    def __call__(self, found: Found, domain: str) -> Iterator[Opened]:
        import ray

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        amount = len(found.pairs)
        opened = ray.data.range(amount, override_num_blocks=-(-amount // PAIRS_PER_BLOCK)).map_batches(
            Worker,
            fn_constructor_args=(ray.put(found), domain),
            batch_size=1 if found.options.choice.instances else TOGETHER,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=self.workers),
            num_cpus=self.cpus_per_worker,
        )
        tables = cast("Iterator[pa.Table]", opened.iter_batches(batch_size=None, batch_format="pyarrow"))
        travelled = (row for table in tables for batch in table.to_batches() for row in batch.to_pylist())
        by_pair = groupby(travelled, key=lambda row: row["pair"])
        for (pair, _), (_, rows) in zip(with_ids(found), by_pair, strict=True):
            yield _opened(pair, list(rows))


class Worker:
    """One process; Ray Data calls it with numbers of pairs."""

    def __init__(self, found: ray.ObjectRef[Found], domain: str) -> None:
        import ray

        self._found: Found = ray.get(found)
        self._ids = list(map(namer(self._found), self._found.pairs))
        self._domain = domain

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Opens a few pairs; a table of `WIRE`."""
        return pa.Table.from_pylist([row for number in batch["id"].to_pylist() for row in self._rows(number)], WIRE)

    def _rows(self, number: int) -> list[dict[str, Any]]:
        pair, row_id = self._found.pairs[number], self._ids[number]
        opened = open_one(self._found, pair, row_id, self._domain)
        if opened.problem is not None:
            return [{"pair": number, "problem": opened.problem}]
        return [{"pair": number, "digest": new.digest, **new.row} for new in opened.rows]


def _opened(pair: Pair, rows: list[dict[str, Any]]) -> Opened:
    """What travelled for one pair."""
    problem = rows[0]["problem"]
    if problem is not None:
        return Opened(pair=pair, problem=problem)
    made = (NewRow(row={name: row[name] for name in ROW.names}, digest=row["digest"]) for row in rows)
    return Opened(pair=pair, rows=tuple(made))
