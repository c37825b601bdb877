"""One at a time. The store is registers in memory that can be read and written, which is all the bakery asks of one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tune.champions import turn as room
from tune.champions.turn import TurnLost, turn


@dataclass
class Registers:
    """The calls of MLflow's client that a turn makes. Each takes a moment, so that calls of others fall between."""

    tags: dict[str, str] = field(default_factory=dict)

    def set_registered_model_tag(self, model: str, key: str, value: str) -> None:
        time.sleep(0.001)
        self.tags[key] = value

    def delete_registered_model_tag(self, model: str, key: str) -> None:
        self.tags.pop(key, None)

    def get_registered_model(self, model: str) -> Any:
        time.sleep(0.001)
        return SimpleNamespace(tags=dict(self.tags))


@pytest.fixture
def registers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(room, "PAUSE_S", 0.002)
    return Registers()


def test_nobody_is_inside_with_another(registers: Any) -> None:
    inside: list[int] = []
    together: list[int] = []
    done: list[int] = []

    def visit(who: int) -> None:
        for _ in range(5):
            with turn(registers, "m"):
                inside.append(who)
                time.sleep(0.002)
                together.append(len(inside))
                inside.remove(who)
            done.append(who)

    threads = [threading.Thread(target=visit, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 30
    assert set(together) == {1}
    assert registers.tags == {}


@pytest.mark.parametrize("left", ["0 0", "1 7"])
def test_the_dead_are_passed_over(registers: Any, left: str) -> None:
    registers.tags = {"turn.dead": left, "domain": "polyp"}
    with turn(registers, "m", stale_s=0.05):
        assert "turn.dead" not in registers.tags
    assert registers.tags == {"domain": "polyp"}


def test_the_living_are_waited_for(registers: Any) -> None:
    order: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with turn(registers, "m"):
            entered.set()
            leave.wait()
            order.append("first")

    def second() -> None:
        with turn(registers, "m"):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    entered.wait()
    threads[1].start()
    while len(registers.tags) < 2:
        time.sleep(0.001)
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["first", "second"]


def test_who_was_taken_for_dead_may_not_write(registers: Any) -> None:
    with turn(registers, "m") as confirm:
        confirm()
        registers.tags.clear()
        with pytest.raises(TurnLost):
            confirm()


def test_a_turn_ends_with_an_error(registers: Any) -> None:
    with pytest.raises(ZeroDivisionError), turn(registers, "m"):
        raise ZeroDivisionError
    assert registers.tags == {}
