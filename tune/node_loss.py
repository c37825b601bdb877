"""Trials whose node was taken away are not blamed for it: spot machines come and go, and `resources.max_failures` is
there for trials that kill their own processes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import ray
from ray import train, tune

from tune.callback import last_failure
from tune.ray_private import forgive

NODE_DIED = "its node has died"
UNREACHABLE = "The actor is temporarily unavailable"
"""Ray's words for an actor that was lost with its machine: where it misses the machine already, and where it does not
yet, as after a power failure. Of a process that died alone Ray learns from its machine, within a second."""
CALL_S = 60.0
"""Longest wait for the feed's answer, which comes at once."""
MOST_LOSSES = 20
"""Nodes that one trial may lose: beyond that it is likely to be what ends them, by taking all their memory."""


def is_node_loss(failure: str) -> bool:
    """Whether these words of Ray's blame a machine."""
    return NODE_DIED in failure or UNREACHABLE in failure


class NodeLosses(tune.Callback):
    """Takes the loss of a node off the failures that Tune counts for the trial that was there."""

    def __init__(self) -> None:
        self._losses: Counter[str] = Counter()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A slot died, and Tune has counted that as a failure of its trial."""
        if is_node_loss(last_failure(trial)) and self._losses[trial.trial_id] < MOST_LOSSES:
            self._losses[trial.trial_id] += 1
            forgive(trial)


class LostWorkers(train.UserCallback):
    """The same for a trial whose processes lie on several nodes, of which one was lost: the slot itself lives on and
    starts its processes anew, which the feed counts.

    Args:
        feed: of the slot, see `tune.feed`."""

    def __init__(self, feed: Any) -> None:
        self._feed = feed
        self.waits = False
        """Whether the last processes to go went with their node, so that the slot needs room on another one. Where
        none comes in time the slot ends, and that is no failure of its trial either."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Processes are gone, and are about to be started again."""
        self.waits = any(is_node_loss(str(error)) for error in worker_exceptions.values())
        if self.waits:
            with contextlib.suppress(ray.exceptions.RayError):  # a feed that is gone counts nothing
                ray.get(self._feed.forgive.remote(MOST_LOSSES), timeout=CALL_S)
