from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from infosam.data.formats import shelf
from infosam.data.formats.arrays import Array


def opened(kib: int = 1) -> Array:
    return Array(np.zeros((kib, 32, 32), np.uint8), (), colour=False)


def test_a_file_is_opened_once_by_all_threads() -> None:
    kept = shelf.Shelf()
    calls: list[int] = []
    gate = threading.Barrier(4)

    def open_it() -> Array:
        calls.append(1)
        return opened()

    def ask(_: int) -> object:
        gate.wait()
        return kept.stack("a", open_it)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(map(id, pool.map(ask, range(4))))) == 1
    assert len(calls) == 1


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "KEPT_MIB", 1)
    kept = shelf.Shelf()
    first = kept.stack("a", lambda: opened(600))
    kept.stack("b", lambda: opened(300))
    assert kept.stack("a", opened) is first
    kept.stack("c", lambda: opened(300))  # b goes: a was used after it
    assert kept.stack("a", opened) is first
    calls: list[int] = []
    kept.stack("b", lambda: calls.append(1) or opened(300))  # type: ignore[func-returns-value]
    assert calls == [1]


def test_two_stay_however_large_and_few_files_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "KEPT_MIB", 0)
    kept = shelf.Shelf()
    image, mask = kept.stack("image", opened), kept.stack("mask", opened)
    assert kept.stack("image", opened) is image
    assert kept.stack("mask", opened) is mask
    monkeypatch.setattr(shelf, "KEPT_MIB", 1024)
    for number in range(100):
        kept.stack(number, opened)
    assert kept.stack("image", opened) is not image


def test_a_file_that_cannot_be_opened_is_tried_again() -> None:
    kept = shelf.Shelf()

    def fail() -> Array:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        kept.stack("a", fail)
    assert kept.stack("a", opened).count == 1


def test_levels_are_measured_once() -> None:
    kept = shelf.Shelf()
    assert kept.levels("a", lambda: ((0.0, 1.0),)) == ((0.0, 1.0),)
    assert kept.levels("a", lambda: ((5.0, 6.0),)) == ((0.0, 1.0),)
