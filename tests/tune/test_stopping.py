"""Budgets and plateaus: counted by known times, and in real searches that must end by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tune.config import BudgetConfig, SchedulerConfig, SweepConfig
from tune.events import OBJECTIVE, BudgetSpent, EpochReported, Event, SweepStarted, TrialEnded, TrialStarted
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import make_plan
from tune.stopping import Budget, Plateau


def started(trial_id: str, at: float) -> TrialStarted:
    return TrialStarted(trial_id=trial_id, values={}, at=at)


def epoch(trial_id: str, number: int, score: float, at: float = 0.0) -> EpochReported:
    return EpochReported(
        trial_id=trial_id, epoch=number, values={OBJECTIVE: score}, checkpoint=None, is_best=True, at=at
    )


def ended(trial_id: str, at: float) -> TrialEnded:
    return TrialEnded(trial_id=trial_id, state="FINISHED", reason="completed", at=at)


def driver(at: float) -> SweepStarted:
    return SweepStarted(
        sweep_id="s", domain="d", experiment="e", settings="", params={}, tags={}, data={},
        zero_shot={}, rungs=(), at=at,
    )  # fmt: skip


class Clock:
    """Time that stands until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_hours_count_from_the_first_trial_and_leave_out_the_time_without_a_driver() -> None:
    clock = Clock()
    budget = Budget(BudgetConfig(hours=2), gpus=0, clock=clock)
    clock.now = 100_000
    assert budget.replay([driver(0)]).spent() is None
    budget = Budget(BudgetConfig(hours=2), gpus=0, clock=clock)
    budget.replay([driver(0), started("t0000", 50), epoch("t0000", 1, 0.1, 50 + 3600), driver(90_000)])
    assert budget.idle
    budget(started("t0000", 100_000))
    clock.now = 100_000 + 3599
    assert budget.spent() is None
    clock.now += 1
    assert budget.spent() == "budget.hours = 2 is used up"


def test_gpu_hours_are_those_of_the_trials_that_ran() -> None:
    clock = Clock()
    budget = Budget(BudgetConfig(gpu_hours=1), gpus=0.5, clock=clock)
    budget.replay([driver(0), started("t0000", 0), started("t0001", 0), ended("t0000", 3600)])
    clock.now = 3599
    assert budget.spent() is None
    clock.now = 3600
    assert budget.spent() == "budget.gpu_hours = 1 is used up"
    budget(ended("t0001", 3600))
    clock.now = 1e9  # nothing runs, nothing is spent
    assert budget.idle
    assert (
        Budget(BudgetConfig(gpu_hours=1.1), gpus=0.5, clock=clock)
        .replay([started("t0000", 0), ended("t0000", 7200)])
        .spent()
        is None
    )


def test_a_target_that_was_reached_stays_reached() -> None:
    budget = Budget(BudgetConfig(target=0.8), gpus=0)
    budget.replay([started("t0000", 0), epoch("t0000", 1, 0.79), epoch("r0000-s1", 1, 0.9)])
    assert budget.spent() is None
    budget(epoch("t0000", 2, 0.8))
    budget(epoch("t0000", 3, 0.7))
    assert "budget.target = 0.8 is reached" in str(budget.spent())


def test_a_plateau_is_a_number_of_epochs_without_progress() -> None:
    plateau = Plateau(SchedulerConfig(plateau_epochs=2, plateau_delta=0.01), Ledger())
    scores = [0.5, 0.505, 0.52, 0.525, 0.529, 0.9]
    assert [plateau.stops("a", number, score) for number, score in enumerate(scores, start=1)] == [
        False, False, False, False, True, False,
    ]  # fmt: skip
    assert not plateau.stops("b", 1, 0.1)
    never = Plateau(SchedulerConfig(), Ledger())
    assert not any(never.stops("a", number, 0.5) for number in range(100))


def test_a_plateau_is_judged_by_the_epochs_of_earlier_drivers_too() -> None:
    ledger = Ledger()
    for event in (started("t0000", 0), epoch("t0000", 1, 0.5), epoch("t0000", 2, 0.5)):
        ledger(event)
    plateau = Plateau(SchedulerConfig(plateau_epochs=2), ledger)
    assert not plateau.stops("t0000", 2, 0.5)  # training repeats the epoch of its checkpoint
    assert plateau.stops("t0000", 3, 0.5)


def run(config: SweepConfig, home: Home, slots: int = 2) -> tuple[Ledger, list[Event], bool]:
    from tune.study import Part, search

    ledger, events = Ledger(), list[Event]()
    plan = make_plan(config, home, "tune.noop")
    part = Part(plan=plan, ledger=ledger, listeners=[events.append])
    return ledger, events, search([part], folder=plan.folder, slots=slots)


def changed(config: SweepConfig, **sections: dict[str, Any]) -> SweepConfig:
    settings = config.model_dump()
    for name, values in sections.items():
        settings[name] = settings[name] | values
    return SweepConfig.model_validate(settings)


@pytest.mark.usefixtures("ray_cluster")
def test_a_target_ends_the_search_with_complete_results(sweep_config: SweepConfig, home: Home) -> None:
    config = changed(
        sweep_config,
        budget={"target": 0.6},
        scheduler={"kind": "none"},
        search={"trials": 50, "points": [{"optim.lr": 1e-3}, {"optim.lr": 1e-3}]},
    )
    ledger, events, interrupted = run(config, home)  # noop reaches 0.675 in epoch 2
    assert not interrupted
    assert len(ledger.trials) <= 4
    assert {trial.end.reason for trial in ledger.trials.values() if trial.end} <= {"budget", "completed"}
    assert all(trial.end for trial in ledger.trials.values())
    assert max(trial.score for trial in ledger.trials.values()) >= 0.6
    (spent,) = [event for event in events if isinstance(event, BudgetSpent)]
    assert "budget.target" in spent.what
    assert ledger.budget == spent.what


@pytest.mark.usefixtures("ray_cluster")
def test_a_seeded_sweep_with_one_slot_repeats_its_plateaus_too(sweep_config: SweepConfig, home: Home) -> None:
    config = changed(
        sweep_config,
        run={"train": {"epochs": 12, "batch_size": 2}},
        search={"trials": 8, "seed": 5},
        scheduler={"kind": "median", "plateau_epochs": 1, "plateau_delta": 0.05, "min_trials": 2},
    )
    rows = []
    for _ in range(2):
        ledger, _, interrupted = run(config, home, 1)
        assert not interrupted
        assert ledger.budget is None
        rows.append([(one.trial_id, one.values, len(one.epochs), one.score, one.end) for one in ledger.trials.values()])
    plain = [[(*row[:-1], row[-1] and row[-1].reason) for row in sweep] for sweep in rows]
    assert plain[0] == plain[1]
    assert len(plain[0]) == 8
    assert "plateau" in {row[-1] for row in plain[0]} <= {"plateau", "early_stopped"}
