"""Sweeps as a driver would log them, without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tune.event_log import NAME, EventLog
from tune.events import EpochReported, Event, SweepEnded, SweepStarted, TrialEnded, TrialRetried, TrialStarted


def started(**changes: Any) -> SweepStarted:
    """The start of sweep polyp-2, of four epochs with a rung after two."""
    facts: dict[str, Any] = {
        "sweep_id": "polyp-2",
        "domain": "polyp",
        "experiment": "infosam",
        "settings": "data: here\n",
        "params": {"train.epochs": 4},
        "tags": {"data_digest": "d1", "seed": "7", "protocol": "strict", "commit": "abc"},
        "data": {"name": "polyp", "digest": "d1" * 32, "source": "/data/polyp", "counts": {"train": 6, "val": 3}},
        "zero_shot": {"val/dice": 0.25},
        "rungs": [2, 4],
        "at": 1000.0,
    }
    return SweepStarted(**(facts | changes))


def ended(**changes: Any) -> SweepEnded:
    facts: dict[str, Any] = {
        "state": "FINISHED",
        "reason": "completed",
        "note": "# Done",
        "tags": {"best_trial": "t0000"},
        "metrics": {"m": 1.0},
        "at": 1100.0,
    }
    return SweepEnded(**(facts | changes))


def epoch(trial_id: str, number: int, dice: float, at: float, *, is_best: bool = True) -> EpochReported:
    values = {"val/dice": dice, "loss/total": 1 - dice}
    return EpochReported(trial_id=trial_id, epoch=number, values=values, checkpoint=None, is_best=is_best, at=at)


def three_trials() -> list[Event]:
    """One completes after a retry, one is stopped early, one breaks before its first epoch."""
    return [
        started(),
        TrialStarted(trial_id="t0000", values={"peft.kind": "lora", "peft.rank": 4, "optim.lr": 1e-3}, at=1001.0),
        TrialStarted(trial_id="t0001", values={"peft.kind": "adapter", "peft.ratio": 0.25}, at=1002.0),
        TrialStarted(trial_id="t0002", values={"optim.lr": 1e-1}, at=1003.0),
        epoch("t0000", 1, 0.3, 1010.5),
        epoch("t0000", 2, 0.8, 1020.5),
        TrialRetried(trial_id="t0000", error="node lost", at=1025.0),
        epoch("t0000", 3, 0.7, 1030.5, is_best=False),
        epoch("t0000", 4, 0.75, 1040.5, is_best=False),
        epoch("t0001", 1, 0.2, 1041.0),
        TrialEnded(
            trial_id="t0002", state="FAILED", reason="error", error="out of memory", trace="line 1\nline 2", at=1050.0
        ),
        TrialEnded(trial_id="t0001", state="KILLED", reason="early_stopped", at=1051.0),
        TrialEnded(trial_id="t0000", state="FINISHED", reason="completed", at=1052.0),
    ]


class Log:
    """The log of a sweep in a folder of its own, written by hand."""

    def __init__(self, folder: Path, events: Sequence[Event] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        self.write(*events)

    def write(self, *events: Event) -> None:
        log = EventLog(self.path)
        for event in events:
            log(event)
        log.close()


class Files:
    """Gives every trial the same bundle and pictures, and counts how often it was asked."""

    def __init__(self, bundle: Path | None = None, images: Sequence[Path] = ()) -> None:
        self._bundle = bundle
        self._images = images
        self.asked: list[str] = []

    def bundle(self, trial_id: str) -> Path | None:
        self.asked.append(trial_id)
        return self._bundle

    def images(self, trial_id: str) -> Sequence[Path]:
        return self._images
