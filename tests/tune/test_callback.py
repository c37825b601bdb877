"""What Tune's hooks make of the lives of trials, where a real search rarely goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tune.callback import EventCallback
from tune.events import OBJECTIVE, Event, TrialEnded, TrialRetried, TrialStarted
from tune.ledger import Ledger
from tune.worker import Report


def a_trial() -> Any:
    return SimpleNamespace(trial_id="of-tune", config={"trial": "t0000", "values": {}}, error_file=None, last_result={})


def test_a_slot_that_dies_before_its_trial_began_costs_the_trial_nothing() -> None:
    """A retry of a trial that never started would be an event of nothing, and the log could not be read again."""
    trial = a_trial()
    told: list[Event] = []
    ledger = Ledger()
    callback = EventCallback(ledger, [told.append])
    callback.on_trial_recover(0, [trial], trial)
    assert told == []
    callback.on_trial_start(0, [trial], trial)
    callback.on_trial_recover(0, [trial], trial)
    callback.on_trial_start(0, [trial], trial)
    callback.on_trial_error(0, [trial], trial)
    assert [type(event) for event in told] == [TrialStarted, TrialRetried, TrialEnded]
    assert len(ledger.trials["t0000"].retries) == 1


def test_processes_that_were_restarted_inside_a_slot_are_told_once() -> None:
    """Ray Train restarts them without a word to Tune; another slot counts anew."""
    trial, told = a_trial(), list[Event]()
    callback = EventCallback(Ledger(), [told.append])
    callback.on_trial_start(0, [trial], trial)
    for epoch, starts in enumerate([1, 2, 2, 1, 3], start=1):
        if epoch == 4:
            callback.on_trial_recover(0, [trial], trial)
        values = {OBJECTIVE: 0.5}
        report = Report(epoch=epoch, values=values, checkpoint=None, is_best=True, completed=False, starts=starts)
        callback.on_trial_result(0, [trial], trial, {"report": report})
    assert [type(event).__name__.removeprefix("Trial") for event in told] == [
        "Started", "EpochReported", "Retried", "EpochReported", "EpochReported", "Retried", "EpochReported",
        "Retried", "Retried", "EpochReported",
    ]  # fmt: skip
