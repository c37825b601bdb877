"""Trials whose node was taken away are not blamed for it: spot machines come and go, and `resources.max_failures` is
there for trials that kill their own processes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ray import tune

from tune.callback import last_failure
from tune.ray_private import forgive

NODE_DIED = "its node has died"
"""Ray's words for an actor that was lost with its machine."""
MOST_LOSSES = 20
"""Nodes that one trial may lose: beyond that it is likely to be what ends them, by taking all their memory."""


class NodeLosses(tune.Callback):
    """Takes the loss of a node off the failures that Tune counts for the trial that was there."""

    def __init__(self) -> None:
        self._losses: Counter[str] = Counter()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A slot died, and Tune has counted that as a failure of its trial."""
        if NODE_DIED in last_failure(trial) and self._losses[trial.trial_id] < MOST_LOSSES:
            self._losses[trial.trial_id] += 1
            forgive(trial)
