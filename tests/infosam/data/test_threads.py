from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator

import pytest

from infosam.data.threads import AHEAD, Room, in_order


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})


def test_several_work_at_once_and_results_stay_in_order() -> None:
    together = threading.Barrier(3, timeout=60)

    def work(number: int) -> int:
        together.wait()  # one alone would wait for ever
        return number * number

    assert list(in_order(work, range(9))) == [number * number for number in range(9)]


def test_no_more_is_begun_than_a_few_ahead() -> None:
    begun: list[int] = []

    def endless() -> Iterator[int]:
        for number in itertools.count():
            begun.append(number)
            yield number

    assert list(itertools.islice(in_order(str, endless()), 5)) == ["0", "1", "2", "3", "4"]
    assert len(begun) <= 5 + AHEAD * 3


def test_an_error_ends_it_and_what_was_not_begun_is_left() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return 6 // (number - 1)

    taken = in_order(work, range(1000))
    assert next(taken) == -6
    with pytest.raises(ZeroDivisionError):
        next(taken)
    assert len(done) < 20


def test_what_is_small_is_done_here_and_order_stays() -> None:
    where: dict[int, int] = {}

    def work(number: int) -> int:
        where[number] = threading.get_ident()
        return number

    assert list(in_order(work, range(20), small=lambda number: number % 3 > 0)) == list(range(20))
    here = threading.get_ident()
    assert [number for number in range(20) if where[number] == here] == [n for n in range(20) if n % 3]


def test_room_is_waited_for_and_one_alone_may_need_more_than_all() -> None:
    room = Room(10)
    order: list[str] = []
    first = room.take(7)

    def second() -> None:
        order.append("asks")
        taken = room.take(99)
        order.append("has")
        room.give_back(taken)

    thread = threading.Thread(target=second)
    thread.start()
    order.append("first is done")
    room.give_back(first)
    thread.join()
    assert order.index("first is done") < order.index("has")
    assert room.take(10) == 10
