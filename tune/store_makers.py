"""The processes that make the stores of a sweep (`tune.encoding_stores`): makers of rows, a keeper on each machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infosam.config import ModelConfig
from tune.fetched import fetch_all
from tune.home import of_this_machine
from tune.worker import training_entry

if TYPE_CHECKING:
    import pyarrow as pa

    from infosam.stored import Content
    from infosam.tensor_store import RowType

BLOCK_ROWS = 8
"""Rows that go from one process to another at a time."""


class Maker:
    """Makes rows of a store, in a process with the resources of a trial's worker."""

    def __init__(
        self,
        training: str,
        model: Mapping[str, Any],
        data: str,
        *,
        device: str,
        threads: int,
        stores: str,
        what: Any,
        fetch: Mapping[str, str],
    ) -> None:
        import torch

        fetch_all(fetch)
        torch.set_num_threads(threads)
        folder = of_this_machine(Path(stores))
        entry, settings = training_entry(training), ModelConfig.model_validate(model)
        materials = entry.load_materials(settings, Path(data), device=device, baselines=False, stores=folder)
        self._content: Content = materials.content(what)

    def __call__(self, numbers: pa.Table) -> pa.Table:
        """Rows by their numbers (column `index`), with their numbers."""
        import pyarrow as pa

        from infosam.tensor_store import packed

        indices = numbers["index"].to_pylist()
        rows = [packed(self._content.make(index), self._content.dtype) for index in indices]
        contents, shapes = zip(*rows, strict=True)
        columns = {
            "index": pa.array(indices, pa.int64()),
            "content": pa.array(contents, pa.large_binary()),
            "shape": pa.array(shapes, pa.list_(pa.int64())),
        }
        return pa.table(columns)


class Keeper:
    """Writes the stores of one machine, and keeps them from being removed as long as it lives."""

    def __init__(self, folder: str, limit_bytes: int) -> None:
        self._folder = of_this_machine(Path(folder))
        self._limit_bytes = limit_bytes
        self._held: list[Any] = []
        self._writer: Any = None
        self._rows = 0

    def begin(self, key: Mapping[str, Any], rows: int, dtype: RowType) -> bool:
        """Whether this machine lacks a sound store; waits for another sweep that is writing it. Raises StoreFull."""
        from infosam.tensor_store import StoreWriter

        self._rows = rows
        self._writer = StoreWriter(self._folder, key, dtype=dtype, rows=rows, limit_bytes=self._limit_bytes)
        if (found := self._writer.found(rows=rows)) is None:
            return True
        self._held.append(found)
        self._writer.close()
        return False

    def add(self, table: pa.Table) -> None:
        """The next rows. Raises StoreFull."""
        for row in table.to_pylist():
            if row["index"] != self._writer.rows:
                raise RuntimeError(f"row {row['index']} came where {self._writer.rows} was expected")
            self._writer.add(row["content"], row["shape"])

    def finish(self) -> None:
        """Puts the store in its place. Raises StoreFull."""
        if self._writer.rows != self._rows:
            raise RuntimeError(f"{self._writer.rows} rows came, {self._rows} were expected")
        self._held.append(self._writer.finish())

    def give_up(self) -> None:
        """Ends a store that was not finished."""
        self._writer.close()


@contextlib.contextmanager
def data_context(patience_s: float) -> Iterator[None]:
    """Maps of Ray Data that are made here give their blocks in the order of their source, write no messages, and end
    when nothing has come for so long."""
    import ray

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.execution_no_progress_timeout_s = patience_s
    with ray.data.DataContext.current(context):
        yield
