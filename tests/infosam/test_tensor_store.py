"""Tensors of frozen models on disk: complete or absent, never wrong, whatever happens to writer, disk or file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_disk import Disk, small_disk
from torch import Tensor

from infosam.config import StoredType
from infosam.tensor_store import (
    StoreDamaged,
    StoreFull,
    StoreWriter,
    TensorStore,
    build_store,
    open_store,
    set_aside,
    store_path,
)

ROWS = 40
KEY = {"weights": "a" * 64, "data": "b" * 64}


def rows(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4, 5, generator=generator) for _ in range(ROWS)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return store_path(tmp_path / "cache", KEY)


def opened(path: Path) -> TensorStore:
    store = open_store(path, rows=ROWS)
    assert store is not None
    return store


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_rows_come_back(path: Path, dtype: StoredType, error: float) -> None:
    build_store(path.parent, KEY, rows(), dtype=dtype, rows=ROWS)
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
    build_store(path.parent, KEY, rows(), dtype="float16", rows=ROWS)
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
    build_store(path.parent, KEY, rows(), dtype="float16", rows=ROWS)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreDamaged):
        opened(path)


def test_a_store_of_another_length_is_noticed(path: Path) -> None:
    build_store(path.parent, KEY, rows()[:-1], dtype="float16", rows=ROWS - 1)
    with pytest.raises(StoreDamaged, match="holds 39 rows, not 40"):
        opened(path)


def damaged(path: Path) -> StoreDamaged:
    """Flips a byte of the store, and what is said about it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(StoreDamaged) as caught:
        opened(path).verify()
    return caught.value


def test_a_damaged_one_is_built_again(path: Path) -> None:
    build_store(path.parent, KEY, rows(), dtype="float16", rows=ROWS)
    damage = damaged(path)
    assert torch.equal(build_store(path.parent, KEY, rows(), dtype="float16", rows=ROWS).read(3), rows()[3].half())
    set_aside(path, damage)  # by a reader that is late: what is there now is another one
    assert torch.equal(opened(path).read(3), rows()[3].half())
    set_aside(path, damaged(path))
    assert open_store(path, rows=ROWS) is None


def test_a_damaged_one_is_left_to_who_writes_it_anew(path: Path) -> None:
    build_store(path.parent, KEY, rows(), dtype="float16", rows=ROWS)
    damage = damaged(path)
    with StoreWriter(path.parent, KEY, dtype="float16", rows=ROWS):
        set_aside(path, damage)
        assert path.exists()


def test_a_store_of_something_else_under_this_name_is_noticed(path: Path) -> None:
    other = build_store(path.parent, {**KEY, "data": "c" * 64}, rows(1), dtype="float16", rows=ROWS)
    other.path.rename(path)
    with pytest.raises(StoreDamaged, match="has another name"):
        opened(path)


def test_a_finished_one_is_left_alone(path: Path) -> None:
    build_store(path.parent, KEY, rows(), dtype="float32", rows=ROWS)
    build_store(path.parent, KEY, rows(1), dtype="float32", rows=ROWS)
    assert torch.equal(opened(path).read(3), rows()[3])


def test_a_writer_that_fails_leaves_nothing(path: Path) -> None:
    def broken() -> Iterator[Tensor]:
        yield from rows()[:20]
        raise RuntimeError("the picture cannot be read")

    with pytest.raises(RuntimeError, match="picture"):
        build_store(path.parent, KEY, broken(), dtype="float16", rows=ROWS)
    assert [each.suffix for each in path.parent.iterdir()] == [".lock"]


WRITER = """
import json, sys, time, torch
from pathlib import Path
import infosam.tensor_store
from infosam.tensor_store import build_store
infosam.tensor_store.BATCH_BYTES = 1000
def slow():
    for number in range(40):
        print(number, flush=True)
        time.sleep(0.05)
        yield torch.full((3, 4, 5), float(number))
build_store(Path(sys.argv[1]), json.loads(sys.argv[2]), slow(), dtype="float32", rows=40)
"""


@contextlib.contextmanager
def other_process(path: Path, *, until: int) -> Iterator[subprocess.Popen[str]]:
    """One that writes the store, and has come to this row."""
    command = [sys.executable, "-c", WRITER, str(path.parent), json.dumps(KEY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != f"{until}\n":
            assert process.poll() is None
        yield process


def test_of_two_processes_at_once_one_makes_the_store(path: Path) -> None:
    made = iter(rows())
    with other_process(path, until=3) as other:
        found = build_store(path.parent, KEY, made, dtype="float32", rows=ROWS)
        assert other.wait(60) == 0
    assert len(list(made)) == ROWS
    assert [int(found.read(index).flatten()[0]) for index in range(ROWS)] == list(range(ROWS))


def test_a_killed_writer_leaves_no_store_and_no_lock(path: Path) -> None:
    with other_process(path, until=20) as killed:
        os.kill(killed.pid, signal.SIGKILL)
    assert path.with_suffix(".part").exists()
    assert open_store(path, rows=ROWS) is None
    build_store(path.parent, KEY, rows(), dtype="float32", rows=ROWS)
    assert all(torch.equal(opened(path).read(index), row) for index, row in enumerate(rows()))
    assert not path.with_suffix(".part").exists()


class TestRoom:
    def test_the_store_unused_for_longest_goes_first(self, tmp_path: Path) -> None:
        paths = [store_path(tmp_path, {"number": number}) for number in range(3)]
        for age, path in enumerate(paths[:2]):
            build_store(tmp_path, {"number": age}, rows(), dtype="float32", rows=ROWS)
            os.utime(path, (1000 + age, 1000 + age))
        opened(paths[0])  # used now
        size = paths[0].stat().st_size
        build_store(tmp_path, {"number": 2}, rows(), dtype="float32", rows=ROWS, limit_bytes=2 * size + 100)
        assert [path.exists() for path in paths] == [True, False, True]

    def test_one_that_somebody_reads_stays(self, tmp_path: Path) -> None:
        paths = [store_path(tmp_path, {"number": number}) for number in range(3)]
        for number in range(2):
            build_store(tmp_path, {"number": number}, rows(), dtype="float32", rows=ROWS)
        os.utime(paths[0], (1000, 1000))
        reader = opened(paths[0])
        os.utime(paths[0], (1000, 1000))
        size = paths[0].stat().st_size
        build_store(tmp_path, {"number": 2}, rows(), dtype="float32", rows=ROWS, limit_bytes=2 * size + 100)
        assert [path.exists() for path in paths] == [True, False, True]
        with pytest.raises(StoreFull, match="under the limit"):
            build_store(tmp_path, {"number": 1}, rows(), dtype="float32", rows=ROWS, limit_bytes=size + 100)
        del reader

    def test_what_the_disk_cannot_hold_is_refused_with_the_first_row(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5000))
        made = iter(rows())
        with pytest.raises(StoreFull, match="the disk has 5000 left"):
            build_store(path.parent, KEY, made, dtype="float32", rows=ROWS)
        assert len(list(made)) == ROWS - 1

    def test_one_that_never_fits_is_refused(self, path: Path) -> None:
        with pytest.raises(StoreFull, match="limit"):
            build_store(path.parent, KEY, rows(), dtype="float32", rows=ROWS, limit_bytes=1000)
        assert not path.exists()

    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Disk]:
        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with small_disk(tmp_path / "small", "4m", lambda patch: patch.setattr(os, "fsync", full)) as disk:
            yield disk

    def test_a_disk_that_fills_meanwhile_leaves_nothing(self, disk: Disk) -> None:
        """The first look found enough for the 2.5 MiB; then somebody else took the rest."""
        path = store_path(disk.folder / "cache", KEY)

        def made() -> Iterator[Tensor]:
            for number in range(ROWS):
                if number == 20:
                    disk.fill()
                yield torch.full((16, 32, 32), float(number))

        with pytest.raises(StoreFull, match="No space left"):
            build_store(path.parent, KEY, made(), dtype="float32", rows=ROWS)
        assert [each.suffix for each in path.parent.iterdir()] == [".lock"]
        disk.free()
        build_store(path.parent, KEY, rows(), dtype="float32", rows=ROWS)
        opened(path).verify()
