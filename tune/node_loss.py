"""Trials whose node was taken away are not blamed for it: spot machines come and go, and `resources.max_failures` is
there for trials that kill their own processes.

A machine that ends without a word, as by a power failure, is missed by Ray after a quarter of a minute to a whole one.
Until then all that is known of an actor there is that nobody answers; of one that died alone Ray mostly learns within a
second."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray import train, tune

from tune.callback import last_failure
from tune.ray_private import blame, died_by_itself, forgive

NODE_DIED = "its node has died"
"""Ray's words for an actor that was lost with its machine."""
SILENT = re.compile(r"The actor (\w+) is unavailable")
"""Its words for one that cannot be reached, with the actor's id."""
CALL_S = 60.0
"""Longest wait for the feed's answer, which comes at once."""
MISSED_S = 60.0
"""Longest wait for what became of an actor that does not answer."""
LOOK_S = 1.0
MOST_LOSSES = 20
"""Nodes that one trial may lose: beyond that it is likely to be what ends them, by taking all their memory."""

Fate = Callable[[str], bool | None]
"""Whether the actor of this id died by itself, None while nobody knows; see `tune.ray_private.died_by_itself`."""


class NodeLosses(tune.Callback):
    """Takes the loss of a node off the failures that Tune counts for the trial that was there. A slot that does not
    answer is taken for lost with its node until it turns out that it was not.

    Args: clock: seconds."""

    def __init__(self, *, fate: Fate = died_by_itself, clock: Callable[[], float] = time.monotonic) -> None:
        self._fate, self._clock = fate, clock
        self._losses: Counter[str] = Counter()
        self._silent: dict[str, Any] = {}  # actors, with the trials that were there
        self._looked_at = clock()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A slot died, and Tune has counted that as a failure of its trial."""
        failure = last_failure(trial)
        silent = SILENT.search(failure)
        if (silent or NODE_DIED in failure) and self._losses[trial.trial_id] < MOST_LOSSES:
            self._losses[trial.trial_id] += 1
            forgive(trial)
            if silent:
                self._silent[silent[1]] = trial

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Looks what became of slots that did not answer."""
        if not self._silent or self._clock() - self._looked_at < LOOK_S:
            return
        self._looked_at = self._clock()
        for actor, trial in list(self._silent.items()):
            if (alone := self._fate(actor)) is not None:
                del self._silent[actor]
                if alone:
                    blame(trial)

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a pickle of its settings, which nobody asks."""
        return {}


class LostWorkers(train.UserCallback):
    """The same for a trial whose processes lie on several nodes, of which one was lost: the slot itself lives on and
    starts its processes anew, which the feed counts.

    Args:
        feed: of the slot, see `tune.feed`.
        pause: waits so many seconds."""

    def __init__(self, feed: Any, *, fate: Fate = died_by_itself, pause: Callable[[float], None] = time.sleep) -> None:
        self._feed, self._fate, self._pause = feed, fate, pause
        self.waits = False
        """Whether the last processes to go went with their node, so that the slot needs room on another one. Where
        none comes in time the slot ends, and that is no failure of its trial either."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Processes are gone, and are about to be started again."""
        self.waits = any(self._went_with_its_node(str(error)) for error in worker_exceptions.values())
        if self.waits:
            with contextlib.suppress(ray.exceptions.RayError):  # a feed that is gone counts nothing
                ray.get(self._feed.forgive.remote(MOST_LOSSES), timeout=CALL_S)

    def _went_with_its_node(self, failure: str) -> bool:
        """Waits where Ray does not know it yet: until it misses the node, it has no room for the process elsewhere."""
        if (silent := SILENT.search(failure)) is None:
            return NODE_DIED in failure
        for _ in range(int(MISSED_S / LOOK_S)):
            if (alone := self._fate(silent[1])) is not None:
                return not alone
            self._pause(LOOK_S)
        return True
