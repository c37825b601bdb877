"""One tensor per image in an Arrow file: written once and completely, read memory-mapped, every row checked by its sum.

For what a frozen model makes of the images of a data set, which is the same in every trial. The file's name is a digest
of everything the content depends on, so another model, data set or preprocessing is another file. All processes of a
machine share the pages of one copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from infosam.config import StoredType
from infosam.errors import UserError

FORMAT = 1
ROWS_PER_BATCH = 16
SUFFIX = ".arrow"

TORCH_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_AS_INTEGERS = {"float32": torch.int32, "float16": torch.int16, "bfloat16": torch.int16}  # numpy knows no bfloat16


class StoreDamaged(RuntimeError):
    """A file does not hold what was written; `set_aside` it and build it again."""


class StoreFull(UserError):
    """No room for a store, on the disk or under the limit."""


class TensorStore:
    """Reads a complete store. Rows are verified when they are read; thread-safe."""

    def __init__(self, path: Path, description: Mapping[str, Any], table: pa.Table) -> None:
        self.path = path
        self._shape: tuple[int, ...] = tuple(description["shape"])
        self._type: StoredType = description["type"]
        self._rows = table.column("tensor").combine_chunks()
        self._sums = table.column("crc32").to_numpy()

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Tensor:
        """Row `index`, of the shape and type it was stored in. Raises StoreDamaged, IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} rows, none is {index}")
        content = memoryview(self._rows[index].as_buffer())
        if _sum(index, content) != int(self._sums[index]):
            raise StoreDamaged(f"{self.path}: row {index} does not have the sum it was written with")
        integers = np.frombuffer(content, dtype=np.int32 if self._type == "float32" else np.int16).copy()
        return torch.from_numpy(integers).view(TORCH_TYPES[self._type]).reshape(self._shape)

    def verify(self) -> None:
        """Reads every row. Raises StoreDamaged."""
        for index in range(len(self)):
            self.read(index)


def store_path(folder: Path, key: Mapping[str, Any]) -> Path:
    """Where the store of what depends on `key` (JSON values) lies."""
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{SUFFIX}"


def open_store(path: Path, *, rows: int) -> TensorStore | None:
    """The store at `path`, None if there is none. Marks it as used now. Raises StoreDamaged if it cannot be `rows`
    tensors."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        description = json.loads(table.schema.metadata[b"infosam"])
        found = TensorStore(path, description, table)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise StoreDamaged(f"{path}: cannot be read: {error}") from error
    width = table.schema.field("tensor").type
    if len(found) != rows or not pa.types.is_fixed_size_binary(width):
        raise StoreDamaged(f"{path}: holds {len(found)} rows, not {rows}")
    with contextlib.suppress(OSError):
        os.utime(path)
    return found


def build_store(path: Path, tensors: Iterable[Tensor], *, dtype: StoredType, limit_bytes: int | None = None) -> None:
    """Writes a store, unless another process has finished it meanwhile; waits for one that is at it.

    Nothing is at `path` until all is there. Stores beside it that were not used for longest are removed where
    `limit_bytes` asks for it. Raises StoreFull where that, or the disk, does not suffice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        if path.exists():
            return
        part = path.with_suffix(".part")  # of a writer that was killed, perhaps: only one writes at a time
        try:
            _write(part, tensors, dtype, limit_bytes)
            make_room(path.parent, part.stat().st_size, limit_bytes)
            part.replace(path)
        except OSError as error:
            raise StoreFull(f"{path.parent}: cannot hold the store: {error}") from error
        finally:
            part.unlink(missing_ok=True)


def set_aside(path: Path) -> None:
    """Removes a damaged store, so that the next one who asks builds it again; whoever has it open keeps reading."""
    path.unlink(missing_ok=True)


def make_room(folder: Path, needed: int, limit_bytes: int | None) -> None:
    """Removes the stores in `folder` that were unused for longest until `needed` bytes more keep the limit.

    Raises StoreFull if they cannot."""
    if limit_bytes is None:
        return
    if needed > limit_bytes:
        raise StoreFull(f"{folder}: {needed} bytes are needed, the limit is {limit_bytes}")
    by_age = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in by_age)
    for path in by_age:
        if total + needed <= limit_bytes:
            return
        total -= path.stat().st_size
        path.unlink()


def _write(part: Path, tensors: Iterable[Tensor], dtype: StoredType, limit_bytes: int | None) -> None:
    writer: pa.RecordBatchFileWriter | None = None
    waiting: list[tuple[bytes, int]] = []
    schema = pa.schema([])
    written = 0
    with pa.OSFile(str(part), "wb") as sink, contextlib.ExitStack() as stack:
        for index, tensor in enumerate(tensors):
            content = _content(tensor, dtype)
            if writer is None:
                schema = _schema(tensor, dtype, len(content))
                writer = stack.enter_context(pa.ipc.new_file(sink, schema))
            written += len(content)
            if limit_bytes is not None and written > limit_bytes:
                raise StoreFull(f"{part.parent}: more than {limit_bytes} bytes are needed, which is the limit")
            waiting.append((content, _sum(index, content)))
            if len(waiting) == ROWS_PER_BATCH:
                writer.write_batch(_batch(waiting, schema))
                waiting = []
        if writer is None:
            raise ValueError("a store needs at least one tensor")
        if waiting:
            writer.write_batch(_batch(waiting, schema))
    with part.open("rb") as stream:
        os.fsync(stream.fileno())


def _schema(tensor: Tensor, dtype: StoredType, width: int) -> pa.Schema:
    description = json.dumps({"shape": list(tensor.shape), "type": dtype})
    fields = [pa.field("tensor", pa.binary(width)), pa.field("crc32", pa.uint32())]
    return pa.schema(fields, metadata={"infosam": description})


def _batch(rows: list[tuple[bytes, int]], schema: pa.Schema) -> pa.RecordBatch:
    contents, sums = zip(*rows, strict=True)
    return pa.record_batch([pa.array(contents, schema.field(0).type), pa.array(sums, pa.uint32())], schema=schema)


def _content(tensor: Tensor, dtype: StoredType) -> bytes:
    stored = tensor.detach().to("cpu", TORCH_TYPES[dtype]).contiguous()
    return bytes(stored.view(_AS_INTEGERS[dtype]).numpy().tobytes())


def _sum(index: int, content: bytes | memoryview) -> int:
    """Of the row's number as well, so that rows in each other's place are noticed."""
    return zlib.crc32(content, index)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds the lock of a store's writers; the system lets go of it when a process dies."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
