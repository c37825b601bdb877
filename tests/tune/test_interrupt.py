"""Ctrl-C once, twice, and before anything runs."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tune.interrupt import EXIT_KILLED, Interrupt

TWICE = """
import signal
from tune.interrupt import Interrupt
with Interrupt(notice=lambda: print("first", flush=True), last_words=lambda: print("last", flush=True)) as interrupt:
    with interrupt.only_asked():
        signal.raise_signal(signal.SIGTERM)
        print("goes on", flush=True)
        signal.raise_signal(signal.SIGINT)
        print("never here", flush=True)
"""


def nothing() -> None:
    pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_what_does_not_ask(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupt(notice=nothing, last_words=nothing) as interrupt:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert interrupt.was_asked()
    assert signal.getsignal(number) == before


def test_what_asks_is_not_interrupted() -> None:
    said: list[str] = []
    with Interrupt(notice=lambda: said.append("stopping"), last_words=nothing) as interrupt:
        with interrupt.only_asked():
            assert not interrupt.was_asked()
            signal.raise_signal(signal.SIGINT)
            assert interrupt.was_asked()
    assert said == ["stopping"]


def test_handlers_that_were_replaced_are_put_back() -> None:
    with Interrupt(notice=nothing, last_words=nothing) as interrupt:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as `ray.init` does
        with interrupt.only_asked():
            signal.raise_signal(signal.SIGTERM)
            assert interrupt.was_asked()


def test_the_second_signal_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_KILLED
    assert done.stdout.split("\n") == ["first", "goes on", "last", ""]
