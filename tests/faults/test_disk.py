"""A disk that is full in the middle of a sweep: checkpoints, event log and everything else."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_disk import Disk, small_disk
from sweep_check import check_resources, check_sweep, lasting_rows, rows

from tune.config import SweepConfig
from tune.event_log import NAME, EventLog
from tune.events import EpochReported, Event
from tune.home import Home
from tune.ledger import Ledger
from tune.runner import resume_sweep, run_sweep

TRAINING = "lasting_training"
RATES = [1e-3, 2e-3, 3e-3, 4e-3]
SIZE = "16m"


def _refuse(log: EventLog) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """On a folder that is no disk, the log and the training only say that it is full."""
    with small_disk(tmp_path / "small", SIZE, lambda patch: patch.setattr(EventLog, "_write", _refuse)) as disk:
        yield disk


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("default:.* lost a")  # each listener says so where the sweep must not end by it
def test_a_full_disk_cuts_the_sweep_off_and_costs_nothing(
    disk: Disk,
    configure: Callable[..., SweepConfig],
    home: Home,
    console: Console,
    once: Callable[[Path, Callable[[Event], bool], Callable[[Event], Any]], threading.Thread],
) -> None:
    folder = disk.folder / "square"

    def wanted(event: Event) -> bool:
        return isinstance(event, EpochReported) and event.trial_id == "t0001" and event.epoch == 2

    once(folder, wanted, lambda event: disk.fill())
    config = configure(RATES).model_copy(update={"storage": disk.folder})
    with pytest.raises((OSError, RuntimeError), match="No space left on device"):
        run_sweep(config, home=home, console=console, training=TRAINING)
    check_resources(2)
    disk.free()
    before = Ledger.replay(folder / NAME)
    assert not any(trial.end and trial.end.state == "FAILED" for trial in before.trials.values())
    resume_sweep(str(folder), home=home, console=console, training=TRAINING)
    ledger = check_sweep(folder, home.tracking_uri, trials=4)
    assert rows(ledger) == pytest.approx(lasting_rows(RATES))
    assert f"--resume {folder}" in console.export_text()
    check_resources(2)
