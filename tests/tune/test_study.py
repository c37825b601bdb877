"""Real searches on a real Ray with two CPUs and no dashboard: ends, faults, and what is left behind."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from processes import slot_process

from infosam.errors import UserError
from tune.config import ResourceConfig, SweepConfig
from tune.events import EpochReported, Event, TrialEnded, TrialRetried
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import SweepPlan, make_plan
from tune.resources import count_slots

pytestmark = pytest.mark.usefixtures("ray_cluster")

RELEASE_S = 15.0


def plan_of(config: SweepConfig, home: Home, training: str = "odd_training", **changes: Any) -> SweepPlan:
    return make_plan(config.model_copy(update=changes), home, training)


def with_points(config: SweepConfig, rates: list[float], kind: str = "none") -> SweepConfig:
    """One trial for each learning rate, in order."""
    settings = config.model_dump()
    settings["space"] = {"optim.lr": {"choice": sorted({*rates})}}
    settings["search"] |= {"trials": len(rates), "points": [{"optim.lr": rate} for rate in rates]}
    settings["scheduler"]["kind"] = kind
    return SweepConfig.model_validate(settings)


def run(plan: SweepPlan, slots: int = 2, *listeners: Any) -> tuple[Ledger, list[Event], bool]:
    from tune.study import Part, search

    ledger, events = Ledger(), list[Event]()
    part = Part(plan=plan, ledger=ledger, listeners=[events.append, *listeners])
    interrupted = search([part], folder=plan.folder, slots=slots)
    return ledger, events, interrupted


def assert_nothing_is_left() -> None:
    """All CPUs free and no placement group alive."""
    import ray
    from ray.util import placement_group_table

    deadline = time.monotonic() + RELEASE_S
    while True:
        free = ray.available_resources().get("CPU", 0)
        alive = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        if free == 2 and not alive:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"{free} of 2 CPUs are free, placement groups {alive}")
        time.sleep(0.2)


def ends(ledger: Ledger) -> dict[str, tuple[str, str]]:
    return {name: (trial.end.state, trial.end.reason) for name, trial in ledger.trials.items() if trial.end}


def study_of(plan: SweepPlan) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(plan.folder / "study.journal")))
    return optuna.load_study(study_name=plan.sweep_id, storage=storage)


def test_a_sweep_with_early_stopping_ends_and_leaves_nothing(sweep_config: SweepConfig, home: Home) -> None:
    plan = plan_of(sweep_config, home, "tune.noop")
    ledger, events, interrupted = run(plan)
    assert not interrupted
    assert sorted(ledger.trials) == [f"t{number:04d}" for number in range(6)]
    states = ends(ledger)
    assert ("FINISHED", "completed") in states.values()
    assert ("KILLED", "early_stopped") in states.values()
    for name, trial in ledger.trials.items():
        epochs = [epoch.epoch for epoch in trial.epochs]
        assert epochs == list(range(1, len(epochs) + 1))
        assert (len(epochs) == 4) == (states[name][1] == "completed")
    assert sum(isinstance(event, TrialEnded) for event in events) == 6
    told = {trial.user_attrs["trial_id"]: trial.state for trial in study_of(plan).trials}
    expected = {"completed": TrialState.COMPLETE, "early_stopped": TrialState.PRUNED}
    assert told == {name: expected[reason] for name, (_, reason) in states.items()}
    assert_nothing_is_left()


def test_bad_trials_fail_alone_and_workers_stay(sweep_config: SweepConfig, home: Home) -> None:
    config = with_points(sweep_config, [1e-3, 0.5, 0.6, 1e-2, 0.4, 0.9, 0.7, 0.3])
    plan = plan_of(config, home)
    ledger, events, _ = run(plan, 1)
    assert ends(ledger) == {
        "t0000": ("FINISHED", "completed"),
        "t0001": ("FAILED", "error"),
        "t0002": ("FAILED", "error"),
        "t0003": ("FINISHED", "completed"),
        "t0004": ("FINISHED", "completed"),
        "t0005": ("FAILED", "error"),
        "t0006": ("FINISHED", "completed"),
        "t0007": ("FINISHED", "completed"),
    }
    raised = ledger.trials["t0001"].end
    assert raised is not None
    assert raised.error == "is where it breaks"
    assert "Traceback" in (raised.trace or "")
    assert len(ledger.trials["t0004"].epochs) == 2
    processes = {name: {epoch.values["worker"] for epoch in trial.epochs} for name, trial in ledger.trials.items()}
    assert len(set.union(*(processes[f"t000{number}"] for number in range(6)))) == 1
    # t0006 kills its worker once in epoch 2; the next worker goes on from epoch 1. t0007 does so after the epoch was
    # saved and before it was reported: the next worker reports it.
    for name in ("t0006", "t0007"):
        assert [epoch.epoch for epoch in ledger.trials[name].epochs] == [1, 2, 3, 4]
        assert len(processes[name]) == 2
    assert sum(isinstance(event, EpochReported) for event in events) == 4 + 1 + 1 + 4 + 2 + 1 + 4 + 4
    assert [trial.state for trial in study_of(plan).trials].count(TrialState.FAIL) == 3
    assert_nothing_is_left()


@pytest.mark.slow
def test_a_trial_that_always_kills_its_process_fails_and_the_slot_goes_on(
    sweep_config: SweepConfig, home: Home
) -> None:
    config = with_points(sweep_config, [0.8, 1e-3])
    config = config.model_copy(update={"resources": ResourceConfig(max_failures=1)})
    ledger, _, _ = run(plan_of(config, home), 1)
    end = ledger.trials["t0000"].end
    assert end is not None
    assert end.state == "FAILED"
    assert "the training process died 2 times in this trial" in (end.error or "")
    assert ends(ledger)["t0001"] == ("FINISHED", "completed")
    assert_nothing_is_left()


@pytest.mark.slow
def test_a_killed_slot_is_replaced_and_its_trial_goes_on(sweep_config: SweepConfig, home: Home) -> None:
    config = with_points(sweep_config, [1e-3, 1e-2])
    killed: list[int] = []

    def kill_slot(event: Event) -> None:
        if isinstance(event, EpochReported) and event.trial_id == "t0001" and not killed:
            killed.append(slot_process())
            os.kill(killed[0], signal.SIGKILL)

    ledger, events, _ = run(plan_of(config, home), 1, kill_slot)
    assert killed
    assert set(ends(ledger).values()) == {("FINISHED", "completed")}
    assert [epoch.epoch for epoch in ledger.trials["t0001"].epochs] == [1, 2, 3, 4]
    assert sum(isinstance(event, TrialRetried) for event in events) == 1
    assert_nothing_is_left()


@pytest.mark.slow
def test_workers_that_cannot_load_fail_every_trial_with_the_reason(sweep_config: SweepConfig, home: Home) -> None:
    config = with_points(sweep_config, [1e-3, 1e-2])
    config = config.model_copy(update={"resources": ResourceConfig(max_failures=0)})
    ledger, _, _ = run(plan_of(config, home, "broken_training"), 2)
    assert set(ends(ledger).values()) == {("FAILED", "error")}
    errors = [trial.end.error or "" for trial in ledger.trials.values() if trial.end]
    assert all("this node has no weights" in error for error in errors)
    assert_nothing_is_left()


@pytest.mark.slow
def test_a_search_ends_where_no_worker_can_load_and_blames_no_trial(sweep_config: SweepConfig, home: Home) -> None:
    from tune.study import NoPlaceLeft, Part, search

    plan, ledger = plan_of(with_points(sweep_config, [1e-3, 1e-2]), home, "broken_training"), Ledger()
    with pytest.raises(NoPlaceLeft, match=r"can start anywhere.*this node has no weights"):
        search([Part(plan=plan, ledger=ledger)], folder=plan.folder, slots=2)
    assert {trial.end.reason for trial in ledger.trials.values() if trial.end} == {"user"}  # they go on later
    assert_nothing_is_left()


def test_interrupting_ends_the_search_with_partial_results(sweep_config: SweepConfig, home: Home) -> None:
    settings = sweep_config.model_dump()
    settings["run"]["train"]["epochs"] = 400
    settings["scheduler"]["kind"] = "none"
    config = SweepConfig.model_validate(settings)

    from tune.study import Part, search

    plan, ledger, events = plan_of(config, home), Ledger(), list[Event]()

    def stop() -> bool:
        return any(isinstance(event, EpochReported) and event.epoch == 3 for event in events)

    part = Part(plan=plan, ledger=ledger, listeners=[events.append])
    assert search([part], folder=plan.folder, slots=1, stop=stop)
    assert ends(ledger) == {"t0000": ("KILLED", "user")}
    assert all(trial.state != TrialState.RUNNING for trial in study_of(plan).trials)
    assert_nothing_is_left()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"cpus_per_worker": 64}, "asked for 64 CPU"),
        ({"gpus_per_worker": 1}, "1 GPU"),
        ({"memory_gib_per_worker": 1e6}, "1000000.0 GiB memory"),
        ({"workers_per_trial": 3}, "only 2 of a trial's 3 workers fit: asked for 1 CPU"),
    ],
)
def test_a_request_no_node_can_hold_is_refused(wanted: dict[str, float], words: str) -> None:
    from tune.resources import cluster_nodes

    with pytest.raises(UserError) as caught:
        count_slots(ResourceConfig.model_validate(wanted), cluster_nodes(), 4)
    assert words in str(caught.value)
    assert "a node with 2 CPU, 0 GPU" in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "trials", "slots"),
    [
        ({}, 8, 6),
        ({}, 3, 3),
        ({"cpus_per_worker": 2}, 8, 2),
        ({"slots": 5}, 8, 5),
        ({"gpus_per_worker": 0.5}, 8, 4),
        ({"workers_per_trial": 2}, 8, 3),
        ({"workers_per_trial": 4}, 8, 1),
    ],
)
def test_slots_are_what_the_nodes_hold(wanted: dict[str, Any], trials: int, slots: int) -> None:
    nodes = [{"CPU": 4.0, "GPU": 2.0}, {"CPU": 2.0}, {"CPU": 0.5, "GPU": 1.0}]
    if wanted == {"cpus_per_worker": 2}:
        nodes = [{"CPU": 3.0}, {"CPU": 2.0}]
    assert count_slots(ResourceConfig.model_validate(wanted), nodes, trials) == slots
