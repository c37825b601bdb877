"""What Tune's hooks make of the lives of trials, where a real search rarely goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tune.callback import EventCallback
from tune.events import Event, TrialEnded, TrialRetried, TrialStarted
from tune.ledger import Ledger


def test_a_slot_that_dies_before_its_trial_began_costs_the_trial_nothing() -> None:
    """A retry of a trial that never started would be an event of nothing, and the log could not be read again."""
    trial: Any = SimpleNamespace(
        trial_id="of-tune", config={"trial": "t0000", "values": {}}, error_file=None, last_result={}
    )
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
