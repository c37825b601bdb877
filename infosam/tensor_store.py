"""One tensor per image in an Arrow file: written once and completely, read memory-mapped, every row checked by its sum.

For what a frozen model makes of the images of a data set, which is the same in every trial. The file's name is a digest
of everything the content depends on, so another model, data set or preprocessing is another file. All processes of a
machine share the pages of one copy, and a store that somebody reads is not removed to make room for another.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from infosam.config import StoredType
from infosam.errors import UserError

FORMAT = 3
SUFFIX = ".arrow"
BATCH_BYTES = 16 << 20
"""Rows are written in batches of about this size."""
USABLE_SHARE = 0.9
"""Of the free disk a store may take no more: trials keep their checkpoints there too."""

RowType = StoredType | Literal["uint8"]
TORCH_TYPES: Mapping[RowType, torch.dtype] = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "uint8": torch.uint8,
}  # fmt: skip
_AS_INTEGERS: Mapping[RowType, tuple[torch.dtype, type[np.generic]]] = {  # numpy knows no bfloat16
    "float32": (torch.int32, np.int32), "float16": (torch.int16, np.int16), "bfloat16": (torch.int16, np.int16),
    "uint8": (torch.uint8, np.uint8),
}  # fmt: skip
_COLUMNS = {"tensor": pa.large_binary(), "shape": pa.list_(pa.int64()), "crc32": pa.uint32()}


class StoreDamaged(RuntimeError):
    """A file does not hold what was written; `set_aside` it and build it again.

    Args:
        file: which one it was, whatever has its name by now (`_identity`).
    """

    def __init__(self, message: str, file: tuple[int, int]) -> None:
        super().__init__(message)
        self.file = file


class StoreFull(UserError):
    """No room for a store, on the disk or under the limit."""


class TensorStore:
    """Reads a complete store. Rows are verified whenever they are read; thread-safe."""

    def __init__(self, path: Path, dtype: RowType, table: pa.Table, file: tuple[int, int]) -> None:
        self.path = path
        self.dtype: RowType = dtype
        self._file = file
        self._rows = table.column("tensor")  # in its chunks: joined they would be a copy in this process' own memory
        self._shapes: list[list[int]] = table.column("shape").to_pylist()
        self._sums: list[int] = table.column("crc32").to_pylist()
        self._hold()

    def __len__(self) -> int:
        return len(self._shapes)

    def read(self, index: int) -> Tensor:
        """Row `index`, of the shape and type it was stored in. Raises StoreDamaged, IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} rows, none is {index}")
        content = memoryview(self._rows[index].as_buffer())
        shape = self._shapes[index]
        if _sum(index, shape, self.dtype, content) != self._sums[index]:
            message = f"{self.path}: row {index} does not have the sum it was written with"
            raise StoreDamaged(message, self._file)
        integers = np.frombuffer(content, dtype=_AS_INTEGERS[self.dtype][1]).copy()
        return torch.from_numpy(integers).view(TORCH_TYPES[self.dtype]).reshape(shape)

    def _hold(self) -> None:
        """Locks the file for reading as long as this object lives."""
        descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        # Not every network disk has locks; what is then removed stays readable.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)

    def verify(self) -> None:
        """Reads every row. Raises StoreDamaged."""
        for index in range(len(self)):
            self.read(index)


class StoreWriter:
    """Writes one store, in the order of its rows. Nothing is at `path` until `finish`; without it nothing ever is.

    Only one process writes a store: this waits for another that is at it, and the system lets the next one go on when
    that dies. So look first whether there is anything left to write. A context manager, which closes it.

    Args:
        key: what the content depends on; it names the file in `folder`, and is in it.
        rows: how many will come, if known: what has no room is then refused with the first of them.
        limit_bytes: largest size of the folder; stores nobody reads go, those unused for longest first.

    Raises StoreFull, here and in its methods, where the disk or the limit does not suffice."""

    def __init__(
        self,
        folder: Path,
        key: Mapping[str, Any],
        *,
        dtype: RowType,
        rows: int | None = None,
        limit_bytes: int | None = None,
    ) -> None:
        self.path = path = store_path(folder, key)
        self._key = key
        self._dtype: RowType = dtype
        self._expected = rows
        self._limit_bytes = limit_bytes
        self._part = path.with_suffix(".part")  # of a writer that was killed, perhaps
        self._stack = contextlib.ExitStack()
        self._writer: pa.RecordBatchFileWriter | None = None
        self._waiting: list[tuple[bytes, Sequence[int], int]] = []
        self._waiting_bytes = self._written = 0
        self.rows = 0  # so far
        with _full_disk_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._stack.enter_context(path.with_suffix(".lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        self._stack.callback(self._part.unlink, missing_ok=True)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def found(self, *, rows: int) -> TensorStore | None:
        """The sound store that another process made before this one could write; a damaged one is removed."""
        store = open_sound(self.path, rows=rows)
        if store is None:
            self.path.unlink(missing_ok=True)  # nobody can have put another there: this is the writer
        return store

    def add(self, content: bytes, shape: Sequence[int]) -> None:
        """The next row, as `packed` gave it."""
        if self.rows == 0:
            self._check_room(len(content) * (self._expected or 1))
        self._waiting.append((content, shape, _sum(self.rows, shape, self._dtype, content)))
        self.rows += 1
        self._written += len(content)
        self._waiting_bytes += len(content)
        if self._limit_bytes is not None and self._written > self._limit_bytes:
            raise StoreFull(f"{self.path.parent}: more than {self._limit_bytes} bytes are needed, which is the limit")
        if self._waiting_bytes >= BATCH_BYTES:
            self._flush()

    def finish(self) -> TensorStore:
        """Puts the store in its place, complete and on the disk; it is opened before anybody may make room by it."""
        if self.rows == 0:
            raise ValueError("a store needs at least one tensor")
        self._flush()
        with _full_disk_told(self.path):
            assert self._writer is not None
            self._writer.close()
            with self._part.open("rb") as stream:
                os.fsync(stream.fileno())
            make_room(self.path.parent, self._part.stat().st_size, self._limit_bytes)
            self._part.replace(self.path)
        found = open_store(self.path, rows=self.rows)
        self.close()
        if found is None:
            raise StoreFull(
                f"{self.path}: was removed as soon as it was written; resources.stores.limit_gib is too small"
            )
        return found

    def close(self) -> None:
        """Gives the store up unless it is finished, and lets others write it."""
        self._stack.close()

    def _check_room(self, needed: int) -> None:
        with _full_disk_told(self.path):
            make_room(self.path.parent, needed, self._limit_bytes)
            free = shutil.disk_usage(self.path.parent).free
        if needed > USABLE_SHARE * free:
            raise StoreFull(f"{self.path.parent}: {needed} bytes are needed, the disk has {free} left")

    def _flush(self) -> None:
        if not self._waiting:
            return
        schema = pa.schema(_COLUMNS.items(), metadata=_metadata(self._dtype, self._key))
        columns = zip(*self._waiting, strict=True)
        arrays = [pa.array(values, one.type) for values, one in zip(columns, schema, strict=True)]
        with _full_disk_told(self.path):
            if self._writer is None:
                sink = self._stack.enter_context(pa.OSFile(str(self._part), "wb"))
                self._writer = pa.ipc.new_file(sink, schema)
            self._writer.write_batch(pa.record_batch(arrays, schema=schema))
        self._waiting, self._waiting_bytes = [], 0


def store_path(folder: Path, key: Mapping[str, Any]) -> Path:
    """Where the store of what depends on `key` (JSON values) lies."""
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}{SUFFIX}"


def _metadata(dtype: RowType, key: Mapping[str, Any]) -> dict[str, str]:
    return {"infosam": json.dumps({"type": dtype, "key": key})}


def open_store(path: Path, *, rows: int) -> TensorStore | None:
    """The store at `path`, None if there is none. Marks it as used now, and as read until it is dropped.

    Raises StoreDamaged if it cannot be `rows` tensors of what its name stands for."""
    try:
        file = _identity(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)  # offsets outside the file would end the process
        said = json.loads(table.schema.metadata[b"infosam"])
        dtype = said["type"]
        if dict(zip(table.schema.names, table.schema.types, strict=True)) != _COLUMNS or dtype not in TORCH_TYPES:
            raise ValueError(f"unknown columns {table.schema}")
        if store_path(path.parent, said["key"]) != path:
            raise ValueError(f"it holds what depends on {said['key']}, which has another name")
        found = TensorStore(path, dtype, table, file)
    except FileNotFoundError:  # somebody made room
        return None
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise StoreDamaged(f"{path}: cannot be read: {error}", file) from error
    if len(found) != rows:
        raise StoreDamaged(f"{path}: holds {len(found)} rows, not {rows}", file)
    with contextlib.suppress(OSError):
        os.utime(path)
    return found


def open_sound(path: Path, *, rows: int) -> TensorStore | None:
    """The store at `path` after every row of it was verified; None for a damaged one, which its writer replaces."""
    try:
        found = open_store(path, rows=rows)
        if found is not None:
            found.verify()
    except StoreDamaged:
        return None
    return found


def build_store(
    folder: Path,
    key: Mapping[str, Any],
    tensors: Iterable[Tensor],
    *,
    dtype: RowType,
    rows: int,
    limit_bytes: int | None = None,
) -> TensorStore:
    """Writes a store, unless another process has finished it meanwhile; it is open, so that none makes room by it.

    Args and errors: see `StoreWriter`."""
    with StoreWriter(folder, key, dtype=dtype, rows=rows, limit_bytes=limit_bytes) as writer:
        if (found := writer.found(rows=rows)) is not None:
            return found
        for tensor in tensors:
            writer.add(*packed(tensor, dtype))
        return writer.finish()


def packed(tensor: Tensor, dtype: RowType) -> tuple[bytes, list[int]]:
    """Content and shape of a row."""
    stored = tensor.detach().to("cpu", TORCH_TYPES[dtype]).contiguous()
    return stored.view(_AS_INTEGERS[dtype][0]).numpy().tobytes(), list(tensor.shape)


def set_aside(path: Path, damage: StoreDamaged) -> None:
    """Removes a damaged store, so that the next one who asks builds it again; whoever has it open keeps reading.

    One that took its place meanwhile stays, and so does any while a writer is at work, who will replace it."""
    with contextlib.suppress(OSError), path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _identity(path) == damage.file:
            path.unlink()


def make_room(folder: Path, needed: int, limit_bytes: int | None) -> None:
    """Removes the stores in `folder` that were unused for longest, and that nobody reads, until `needed` bytes more
    keep the limit. Raises StoreFull if they cannot."""
    if limit_bytes is None:
        return
    by_age = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
    excess = sum(path.stat().st_size for path in by_age) + needed - limit_bytes
    going = []
    for path in by_age:
        if excess > 0 and not _is_locked(path):
            going.append(path)
            excess -= path.stat().st_size
    if excess > 0:
        raise StoreFull(
            f"{folder}: {needed} bytes are needed, {needed - excess} are free under the limit {limit_bytes}"
        )
    for path in going:
        path.unlink(missing_ok=True)


def unused(folder: Path, since_s: float) -> list[Path]:
    """Stores, and what killed writers left, that nobody reads or writes and nobody has touched since then, in seconds
    of the epoch."""
    old = [path for path in folder.iterdir() if path.suffix in (SUFFIX, ".part") and path.stat().st_mtime <= since_s]
    return sorted(path for path in old if not _is_locked(path if path.suffix == SUFFIX else path.with_suffix(".lock")))


def _identity(path: Path) -> tuple[int, int]:
    """Of a file, whatever its name: device and number. Raises OSError."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it is gone, or on a network disk without such locks
        return False
    return False


def _sum(index: int, shape: Sequence[int], dtype: RowType, content: bytes | memoryview) -> int:
    """Of the row's number, shape and type as well, so that rows in each other's place are noticed."""
    return zlib.crc32(content, zlib.crc32(json.dumps([index, list(shape), dtype]).encode()))


@contextlib.contextmanager
def _full_disk_told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreFull(f"{path.parent}: cannot hold the store: {error}") from error
