"""Tensors of frozen models on disk: complete or absent, never wrong, whatever happens to writer, disk or file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from infosam.config import StoredType
from infosam.tensor_store import (
    StoreDamaged,
    StoreFull,
    TensorStore,
    build_store,
    open_store,
    set_aside,
    store_path,
)

ROWS = 40


def rows(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4, 5, generator=generator) for _ in range(ROWS)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return store_path(tmp_path / "cache", {"weights": "a" * 64, "data": "b" * 64})


def opened(path: Path) -> TensorStore:
    store = open_store(path, rows=ROWS)
    assert store is not None
    return store


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_rows_come_back(path: Path, dtype: StoredType, error: float) -> None:
    build_store(path, rows(), dtype=dtype)
    store = opened(path)
    assert len(store) == ROWS
    for index in (0, 17, ROWS - 1):
        torch.testing.assert_close(store.read(index).float(), rows()[index], rtol=error, atol=error)
    with pytest.raises(IndexError):
        store.read(ROWS)
    assert {each.suffix for each in path.parent.iterdir()} == {".arrow", ".lock"}


def test_what_content_depends_on_names_the_file(tmp_path: Path) -> None:
    names = {store_path(tmp_path, {"weights": weights, "px": px}) for weights in "ab" for px in (64, 128)}
    assert len(names) == 4
    assert store_path(tmp_path, {"a": 1, "b": 2}) == store_path(tmp_path, {"b": 2, "a": 1})


def test_none_is_there_yet(path: Path) -> None:
    assert open_store(path, rows=ROWS) is None


def test_every_flipped_byte_is_noticed(path: Path) -> None:
    build_store(path, rows(), dtype="float16")
    sound = path.read_bytes()
    expected = [row.half() for row in rows()]
    for position in range(0, len(sound), 97):
        damaged = bytearray(sound)
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        try:
            store = opened(path)
            read = [store.read(index) for index in range(ROWS)]
        except StoreDamaged:
            continue
        assert all(torch.equal(one, other) for one, other in zip(read, expected, strict=True)), position


@pytest.mark.parametrize("length", [0, 100, 4000])
def test_a_truncated_file_is_noticed(path: Path, length: int) -> None:
    build_store(path, rows(), dtype="float16")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreDamaged):
        opened(path)


def test_a_store_of_another_length_is_noticed(path: Path) -> None:
    build_store(path, rows()[:-1], dtype="float16")
    with pytest.raises(StoreDamaged, match="holds 39 rows, not 40"):
        opened(path)


def test_a_damaged_one_is_built_again(path: Path) -> None:
    build_store(path, rows(1), dtype="float16")
    set_aside(path)
    build_store(path, rows(), dtype="float16")
    assert torch.equal(opened(path).read(3), rows()[3].half())


def test_a_finished_one_is_left_alone(path: Path) -> None:
    build_store(path, rows(), dtype="float32")
    build_store(path, rows(1), dtype="float32")
    assert torch.equal(opened(path).read(3), rows()[3])


def test_a_writer_that_fails_leaves_nothing(path: Path) -> None:
    def broken() -> Iterator[Tensor]:
        yield from rows()[:20]
        raise RuntimeError("the picture cannot be read")

    with pytest.raises(RuntimeError, match="picture"):
        build_store(path, broken(), dtype="float16")
    assert [each.suffix for each in path.parent.iterdir()] == [".lock"]


def test_two_writers_at_once_make_one_store(path: Path) -> None:
    made: list[int] = []

    def counted(number: int) -> Iterator[Tensor]:
        for row in rows():
            made.append(number)
            time.sleep(0.005)
            yield row

    writers = [threading.Thread(target=lambda n=n: build_store(path, counted(n), dtype="float16")) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(made) == ROWS
    assert torch.equal(opened(path).read(39), rows()[39].half())


KILLED = """
import sys, time, torch
from pathlib import Path
import infosam.tensor_store
from infosam.tensor_store import build_store
infosam.tensor_store.BATCH_BYTES = 1000
def slow():
    for number in range(40):
        print(number, flush=True)
        time.sleep(0.05)
        yield torch.full((3, 4, 5), float(number))
build_store(Path(sys.argv[1]), slow(), dtype="float32")
"""


def test_a_killed_writer_leaves_no_store_and_no_lock(path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    while int(writer.stdout.readline()) < 20:
        pass
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert path.with_suffix(".part").exists()
    assert open_store(path, rows=ROWS) is None
    build_store(path, rows(), dtype="float32")
    assert all(torch.equal(opened(path).read(index), row) for index, row in enumerate(rows()))
    assert not path.with_suffix(".part").exists()


class TestRoom:
    def test_the_store_unused_for_longest_goes_first(self, tmp_path: Path) -> None:
        paths = [store_path(tmp_path, {"number": number}) for number in range(3)]
        for age, path in enumerate(paths[:2]):
            build_store(path, rows(), dtype="float32")
            os.utime(path, (1000 + age, 1000 + age))
        opened(paths[0])  # used now
        size = paths[0].stat().st_size
        build_store(paths[2], rows(), dtype="float32", limit_bytes=2 * size + 100)
        assert [path.exists() for path in paths] == [True, False, True]

    def test_one_that_somebody_reads_stays(self, tmp_path: Path) -> None:
        paths = [store_path(tmp_path, {"number": number}) for number in range(3)]
        for path in paths[:2]:
            build_store(path, rows(), dtype="float32")
        os.utime(paths[0], (1000, 1000))
        reader = opened(paths[0])
        os.utime(paths[0], (1000, 1000))
        size = paths[0].stat().st_size
        build_store(paths[2], rows(), dtype="float32", limit_bytes=2 * size + 100)
        assert [path.exists() for path in paths] == [True, False, True]
        with pytest.raises(StoreFull, match="under the limit"):
            build_store(paths[1], rows(), dtype="float32", rows=ROWS, limit_bytes=size + 100)
        del reader

    def test_what_the_disk_cannot_hold_is_refused_with_the_first_row(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5000))
        made = iter(rows())
        with pytest.raises(StoreFull, match="the disk has 5000 left"):
            build_store(path, made, dtype="float32", rows=ROWS)
        assert len(list(made)) == ROWS - 1

    def test_one_that_never_fits_is_refused(self, path: Path) -> None:
        with pytest.raises(StoreFull, match="limit"):
            build_store(path, rows(), dtype="float32", limit_bytes=1000)
        assert not path.exists()

    def test_a_full_disk_leaves_nothing(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreFull, match="No space left"):
            build_store(path, rows(), dtype="float32")
        assert [each.suffix for each in path.parent.iterdir()] == [".lock"]
