"""When a slot is taken for dead although its process is there."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

from tune.watchdog import GRACE_S, LOOK_S, Watchdog

STEP_S = 100.0


class Driver:
    """Tune's loop with a clock that is set by hand."""

    def __init__(self, *names: str) -> None:
        self.now = 0.0
        self.killed: list[str] = []
        self.trials: list[Any] = []
        self.watchdog = Watchdog(STEP_S, kill=self.killed.append, clock=lambda: self.now)
        for name in names:
            self.trials.append(SimpleNamespace(trial_id=name, temporary_state=SimpleNamespace(ray_actor=name)))
            self.watchdog.on_trial_start(0, self.trials, self.trials[-1])

    def run(self, seconds: float, reporting: tuple[int, ...] = ()) -> None:
        """Goes on for so long, with results of these trials every second."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            for number in reporting:
                self.watchdog.on_trial_result(0, self.trials, self.trials[number], {})
            self.watchdog.on_step_end(0, self.trials)


def test_a_silent_slot_is_killed_once_and_one_that_reports_is_not() -> None:
    driver = Driver("a", "b")
    driver.run(STEP_S + GRACE_S - LOOK_S, reporting=(1,))
    assert driver.killed == []
    driver.run(3 * LOOK_S, reporting=(1,))
    assert driver.killed == ["a"]


def test_trials_without_a_slot_are_waited_for() -> None:
    driver = Driver("a")
    driver.trials[0].temporary_state.ray_actor = None
    driver.run(3 * (STEP_S + GRACE_S))
    driver.trials[0].temporary_state.ray_actor = "another"  # its time begins now
    driver.run(STEP_S)
    assert driver.killed == []
    driver.run(GRACE_S + 2 * LOOK_S)
    assert driver.killed == ["another"]


def test_a_driver_that_was_stopped_itself_blames_nobody() -> None:
    driver = Driver("a")
    driver.run(STEP_S)
    driver.now += 1e6
    driver.run(GRACE_S / 2)
    assert driver.killed == []
    driver.run(GRACE_S / 2 + 2 * LOOK_S)
    assert driver.killed == ["a"]


def test_tunes_pickle_of_it_is_empty() -> None:
    assert vars(pickle.loads(pickle.dumps(Watchdog(STEP_S)))) == {}
