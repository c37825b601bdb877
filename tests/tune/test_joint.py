"""Lanes in one run of Tune: whose turn it is, and that nothing of one sweep reaches another."""

from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tune.joint import JointCallback, JointScheduler, JointSearcher, JointStopper, Lane


class Listed(Searcher):
    """Suggests these, then says FINISHED; `wait` stands for a time with nothing to suggest yet."""

    def __init__(self, *names: str) -> None:
        super().__init__(metric="val/dice", mode="max")
        self._names = list(names)
        self.ended: list[str] = []

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        name = self._names.pop(0) if self._names else Searcher.FINISHED
        if name == Searcher.FINISHED:
            return name
        return None if name == "wait" else {"trial": name, "values": {}}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.ended.append(trial_id)


class Stop(tune.Stopper):
    """Ends trials whose score is below a bound, and all when it is told."""

    def __init__(self, bound: float) -> None:
        self.bound, self.is_over = bound, False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return bool(result["val/dice"] < self.bound)

    def stop_all(self) -> bool:
        return self.is_over


class Heard(tune.Callback):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.calls.append(("start", trial.trial_id))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.calls.append(("result", trial.trial_id))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.calls.append(("recover", trial.trial_id))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.calls.append(("complete", trial.trial_id))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.calls.append(("error", trial.trial_id))


def lane(sweep_id: str, *names: str, trials: int = 9, scheduler: TrialScheduler | None = None) -> Lane:
    return Lane(
        sweep_id=sweep_id,
        searcher=Listed(*names),
        scheduler=scheduler or FIFOScheduler(),  # type: ignore[no-untyped-call]
        callback=Heard(),
        stopper=Stop(0.5 if sweep_id == "a" else 0.0),
        trials=trials,
    )


def suggested(lanes: Sequence[Lane], asked: int) -> list[Any]:
    searcher = JointSearcher(lanes, lambda: 9)
    found = [searcher.suggest(f"id{number}") for number in range(asked)]
    return [f"{one['sweep']}{one['trial']}" if isinstance(one, dict) else one for one in found]


def trial(sweep_id: str, number: int = 0) -> Any:
    return SimpleNamespace(trial_id=f"{sweep_id}{number}", config={"sweep": sweep_id, "trial": f"t{number}"})


@pytest.mark.parametrize(
    ("lanes", "expected"),
    [
        ([lane("a", "0", "1")], ["a0", "a1", "FINISHED"]),
        ([lane("a", "0", "1"), lane("b", "0", "1")], ["a0", "b0", "a1", "b1", "FINISHED"]),
        ([lane("a", "0"), lane("b", "0", "1", "2")], ["a0", "b0", "b1", "b2", "FINISHED"]),
        ([lane("a", "0", "1", "2", trials=1), lane("b", "0", "1")], ["a0", "b0", "b1", "FINISHED"]),
        ([lane("a", "wait", "0"), lane("b", "0", "1")], ["b0", "a0", "b1", "FINISHED"]),
        ([lane("a", "wait", "0"), lane("b", "wait", "0")], [None, "a0", "b0", "FINISHED"]),
        ([lane("a"), lane("b")], ["FINISHED", "FINISHED"]),
    ],
    ids=["alone", "in turn", "the rest alone", "no more than its trials", "no slot idles", "all wait", "nothing"],
)
def test_lanes_take_turns(lanes: list[Lane], expected: list[Any]) -> None:
    assert suggested(lanes, len(expected)) == expected


def test_no_more_trials_than_slots_run() -> None:
    """Nor is the sweep taken for finished while it waits for one."""
    lanes, slots = [lane("a", "0", "1", "2", trials=3)], [1]
    searcher = JointSearcher(lanes, lambda: slots[0])
    assert [searcher.suggest("x") is None, searcher.suggest("y")] == [False, None]
    slots[0] = 2
    assert searcher.suggest("y") == {"trial": "1", "values": {}, "sweep": "a"}
    assert searcher.suggest("z") is None
    searcher.on_trial_complete("x", {"val/dice": 0.5})
    assert searcher.suggest("z") is not None
    assert searcher.suggest("last") == "FINISHED"


def test_the_end_of_a_trial_goes_to_who_suggested_it() -> None:
    lanes = [lane("a", "0"), lane("b", "0")]
    searcher = JointSearcher(lanes, lambda: 9)
    for name in ("x", "y"):
        searcher.suggest(name)
    searcher.on_trial_complete("y", {"val/dice": 0.5})
    assert [one.searcher.ended for one in lanes] == [[], ["y"]]  # type: ignore[attr-defined]


def asha() -> ASHAScheduler:
    return ASHAScheduler(time_attr="epoch", metric="val/dice", mode="max", max_t=4, grace_period=1, reduction_factor=2)


def test_trials_are_compared_with_those_of_their_own_sweep() -> None:
    """In `a` all score higher than in `b`: together, each of `b` would be stopped."""
    together = JointScheduler([lane("a", scheduler=asha()), lane("b", scheduler=asha())])
    assert together.set_search_properties(None, None)
    said: dict[str, list[str]] = {"a": [], "b": []}
    for number in range(4):
        for name, base in (("a", 0.8), ("b", 0.1)):
            one = trial(name, number)
            together.on_trial_add(None, one)
            row = {"epoch": 1, "val/dice": base - number / 100}
            said[name].append(together.on_trial_result(None, one, row))
            together.on_trial_complete(None, one, row)
    assert said["a"] == said["b"]
    assert set(said["a"]) == {"CONTINUE", "STOP"}


@pytest.mark.parametrize("seed", range(5))
def test_the_next_trial_is_the_one_that_tunes_own_scheduler_takes(seed: int) -> None:
    drawn, scheduler = random.Random(seed), JointScheduler([lane("a"), lane("b")])
    trials = [trial(drawn.choice("ab"), number) for number in range(30)]
    for one in trials:
        scheduler.on_trial_add(None, one)
        one.status = drawn.choice([Trial.PENDING, Trial.PAUSED, Trial.RUNNING, Trial.TERMINATED, Trial.ERROR])
    while True:
        alive = [one for one in reversed(trials) if one.status not in (Trial.TERMINATED, Trial.ERROR)]
        controller = SimpleNamespace(get_trials=lambda: trials, get_live_trials=lambda alive=alive: alive)
        expected = FIFOScheduler().choose_trial_to_run(controller)
        assert scheduler.choose_trial_to_run(controller) is expected
        if expected is None:
            break
        expected.status = Trial.RUNNING


def test_hooks_and_stops_go_to_the_own_lane() -> None:
    lanes = [lane("a"), lane("b")]
    callback, stopper = JointCallback(lanes), JointStopper(lanes)
    one = trial("b")
    callback.on_trial_start(0, [], one)
    callback.on_trial_result(0, [], one, {})
    callback.on_trial_recover(0, [], one)
    callback.on_trial_complete(0, [], one)
    callback.on_trial_error(0, [], one)
    heard: list[Any] = [lane.callback for lane in lanes]
    assert heard[0].calls == []
    assert [name for name, _ in heard[1].calls] == ["start", "result", "recover", "complete", "error"]
    low = {"val/dice": 0.3}
    assert stopper("id", {**low, "config": trial("a").config})
    assert not stopper("id", {**low, "config": trial("b").config})


def test_the_run_ends_when_no_lane_goes_on() -> None:
    lanes = [lane("a"), lane("b")]
    stoppers: list[Any] = [one.stopper for one in lanes]
    stopper = JointStopper(lanes)
    stoppers[0].is_over = True
    assert not stopper.stop_all()
    stoppers[1].is_over = True
    assert stopper.stop_all()


def test_tune_can_keep_a_copy_of_the_searcher() -> None:
    copy = pickle.loads(pickle.dumps(JointSearcher([lane("a", "0")], lambda: 1)))
    assert copy.mode == "max"
