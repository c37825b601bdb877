"""Early stopping by comparison: the median rule against its definition, and what rungs leave alone."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from infosam.config import OptimConfig
from infosam.optimisation import learning_rate
from tune.config import SchedulerConfig
from tune.events import OBJECTIVE
from tune.schedulers import MedianScheduler, make_scheduler


@dataclass(frozen=True)
class OneTrial:
    """What a scheduler asks of a trial."""

    trial_id: str


def report(scheduler: TrialScheduler, name: str, epoch: int, score: float) -> str:
    row: dict[str, Any] = {"epoch": epoch, OBJECTIVE: score}
    return str(scheduler.on_trial_result(None, OneTrial(name), row))


@pytest.mark.parametrize(
    ("kind", "expected"), [("none", FIFOScheduler), ("asha", ASHAScheduler), ("median", MedianScheduler)]
)
def test_every_kind_has_its_scheduler(kind: str, expected: type) -> None:
    assert type(make_scheduler(SchedulerConfig.model_validate({"kind": kind}), 8)) is expected


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_trials_shorter_than_the_grace_period_run_to_their_end(kind: str) -> None:
    scheduler = make_scheduler(SchedulerConfig.model_validate({"kind": kind, "grace_epochs": 4}), 3)
    for number in range(8):
        scheduler.on_trial_add(None, OneTrial(f"t{number}"))
    answers = {report(scheduler, f"t{number}", epoch, 0.9 - 0.1 * number) for epoch in (1, 2) for number in range(8)}
    assert answers == {TrialScheduler.CONTINUE}


def test_a_trial_below_the_median_of_running_means_is_stopped() -> None:
    """Against the rule written out, on random curves told epoch by epoch in turn."""
    rng = np.random.default_rng(0)
    curves = {f"t{number}": rng.uniform(size=6).tolist() for number in range(7)}
    scheduler = MedianScheduler(grace_epochs=2, min_trials=3)
    past: dict[str, list[float]] = {name: [] for name in curves}
    running = dict(curves)
    for epoch in range(1, 7):
        for name in list(running):
            others = [statistics.fmean(values[:epoch]) for values in past.values() if len(values) >= epoch]
            past[name].append(curves[name][epoch - 1])
            poor = epoch >= 2 and len(others) >= 3 and max(past[name]) < statistics.median(others)
            assert report(scheduler, name, epoch, curves[name][epoch - 1]) == ("STOP" if poor else "CONTINUE")
            if poor:
                del running[name]
    assert 0 < len(running) < len(curves)


def test_a_repeated_epoch_is_not_answered_twice() -> None:
    scheduler = MedianScheduler(grace_epochs=1, min_trials=1)
    for _ in range(3):
        assert report(scheduler, "a", 1, 0.9) == "CONTINUE"
    assert report(scheduler, "b", 1, 0.1) == "STOP"
    assert report(scheduler, "c", 1, 0.6) == "CONTINUE"  # the median of 0.9 and 0.1 is 0.5


def test_a_failed_report_is_no_score() -> None:
    scheduler = MedianScheduler(grace_epochs=1, min_trials=1)
    assert str(scheduler.on_trial_result(None, OneTrial("a"), {"done": True})) == "CONTINUE"


def test_the_learning_rate_of_a_trial_does_not_know_of_rungs() -> None:
    """At an epoch every trial stands at the same point of one cosine over all epochs, and only the last epoch ends at
    its floor."""
    config, epochs, per_epoch = OptimConfig(lr=1e-3, warmup_fraction=0.0, floor=0.1), 8, 5
    steps = epochs * per_epoch
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    rung = 2 * per_epoch
    assert rates[rung] == pytest.approx(1e-3 * (0.1 + 0.9 * (1 + np.cos(np.pi / 4)) / 2))
    assert min(rates) == pytest.approx(1e-4, rel=0.02)
