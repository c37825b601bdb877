"""Ctrl-C once, twice, and before anything runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from tune import runner, sweep_run
from tune.config import SweepConfig
from tune.event_log import NAME
from tune.home import Home
from tune.interrupt import EXIT_KILLED, Interrupt
from tune.ledger import Ledger

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


FAMILY = """
import signal, subprocess
from tune.interrupt import Interrupt
def nothing():
    pass
child = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline().strip(), flush=True)
with Interrupt(notice=nothing, last_words=nothing) as interrupt, interrupt.only_asked():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
"""


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


def test_the_second_signal_ends_children_and_their_children() -> None:
    done = subprocess.run([sys.executable, "-c", FAMILY], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_KILLED
    child, grandchild = map(int, done.stdout.split())
    deadline = time.monotonic() + 30
    while (is_alive(child) or is_alive(grandchild)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)
    assert not is_alive(grandchild)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_signal_while_stores_are_built_ends_a_sweep_that_can_go_on(
    sweep_config: SweepConfig, home: Home, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has begun, Ray of its own has put its handler in place of ours, and the search, which asks, is yet to come."""
    search = {"trials": 1, "startup_trials": 1}
    config = SweepConfig.model_validate(sweep_config.model_dump() | {"search": search})
    with monkeypatch.context() as patch:
        patch.setattr(sweep_run, "build_stores", lambda *others, **named: signal.raise_signal(signal.SIGTERM))
        outcome = runner.run_sweep(config, home=home, console=console, training="tune.noop")
    assert outcome.interrupted
    end = Ledger.replay(outcome.folder / NAME).end
    assert end is not None
    assert (end.state, end.reason) == ("KILLED", "user")
    again = runner.resume_sweep(outcome.sweep_id, home=home, console=console, training="tune.noop")
    assert [trial.end.reason for trial in again.ledger.trials.values() if trial.end] == ["completed"]
