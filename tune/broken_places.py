"""Places that cannot train - a GPU that is broken, a node without the weights - do not use up the trials.

A slot there fails as soon as it starts, so it is free for the next trial at once, and a whole sweep would end in it
while the sound slots are busy. Such a failure is not counted against its trial, and when it repeats on a node, room for
one trial's worker is kept occupied there, so that no other slot starts in it. If no room is left, the sweep ends; what
was not trained goes on with `--resume`."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ray import tune

from tune.callback import last_failure
from tune.config import ResourceConfig
from tune.ray_private import forgive
from tune.resources import GROWS, actor_options, cluster_nodes, fitting_workers
from tune.slot_plan import SWEEP
from tune.worker import Report

CANNOT_START = re.compile(r"cannot start on node (\w+): (.*)")
"""A slot's words for processes that cannot load what all trials need."""
MOST_FORGIVEN = 20
"""Starts that one trial may lose so; more than that, and something else is wrong with it."""


class Hold(Protocol):
    """Room on a node that is kept occupied."""

    @property
    def node(self) -> str: ...
    @property
    def is_granted(self) -> bool: ...
    def release(self) -> None: ...


class NoPlaceLeft(RuntimeError):
    """No training process can start anywhere, so the sweep was cut off."""


class BrokenPlaces(tune.Callback):
    """Keeps new slots away from where they cannot start.

    Args:
        sweeps: that share the slots.
        hold: occupies room for a worker on a node of this id.
        nodes: resources of every live node, by Ray's names.
    """

    def __init__(
        self,
        resources: ResourceConfig,
        sweeps: int,
        *,
        hold: Callable[[str, Mapping[str, float]], Hold] | None = None,
        nodes: Callable[[], list[dict[str, float]]] = cluster_nodes,
    ) -> None:
        self._resources, self._sweeps = resources, sweeps
        self._hold, self._nodes = hold or Placeholder, nodes
        self._failures: Counter[str] = Counter()  # by node
        self._forgiven: Counter[str] = Counter()  # by trial
        self._struck: set[str] = set()  # sweeps whose trials could not start
        self._is_heard = False  # whether any trial reported since the first failure
        self._blames_trials = False
        self._holds: list[Hold] = []
        self.none_left: str | None = None  # why no process can start anywhere

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Somewhere training works."""
        self._is_heard = self._is_heard or isinstance(result.get("report"), Report)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A slot died, and Tune has counted that as a failure of its trial."""
        found = CANNOT_START.search(last_failure(trial))
        if found is None or self._blames_trials or self._forgiven[trial.trial_id] >= MOST_FORGIVEN:
            return
        if not self._failures:
            self._is_heard = False
        node, error = found.groups()
        self._forgiven[trial.trial_id] += 1
        forgive(trial)
        self._failures[node] += 1
        self._struck.add(trial.config[SWEEP])
        # Once may be a hiccup. And while one hold waits for room, the next failure is likely to be of the same place.
        if self._failures[node] > 1 and all(one.is_granted for one in self._holds if one.node == node):
            self._holds.append(self._hold(node, self._resources.bundle))
            if self._places_left() < self._resources.workers_per_trial and os.environ.get(GROWS) != "1":
                self._give_up(error)

    def close(self) -> None:
        """Gives back what is occupied."""
        while self._holds:
            self._holds.pop().release()

    def _places_left(self) -> int:
        return sum(fitting_workers(self._resources.bundle, node) for node in self._nodes()) - len(self._holds)

    def _give_up(self, error: str) -> None:
        self.close()
        if self._is_heard or len(self._struck) < self._sweeps:  # others can train: it is these trials' own fault
            self._blames_trials = True
        else:
            self.none_left = f"no training process can start anywhere; the last one said: {error}"

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a pickle of its settings, which nobody asks."""
        return {}


class Placeholder:
    """Occupies room for one worker on one node as soon as it is free, with a process that does nothing."""

    def __init__(self, node: str, bundle: Mapping[str, float]) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        class Occupant:  # defined here, so that its process need not import this module, and Tune with it
            def is_there(self) -> bool:
                return True

        self.node = node
        occupant: Any = ray.remote(Occupant)
        # Not a placement group: one that waits is looked at now and then only, and the slot's next one would be first.
        self._actor = occupant.options(
            **actor_options(bundle),
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote()
        self._answer = self._actor.is_there.remote()

    @property
    def is_granted(self) -> bool:
        """Whether it has the room, or its node is gone."""
        import ray

        return bool(ray.wait([self._answer], timeout=0)[0])

    def release(self) -> None:
        """Ends the process."""
        import ray

        with contextlib.suppress(Exception):  # a node that is gone took it along
            ray.kill(self._actor)
