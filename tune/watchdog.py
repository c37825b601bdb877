"""Notices slots that have gone silent: a process that is stopped, or hangs where its own deadline cannot help it.

A slot gives up on its training processes by itself (`tune.slot`). But when the slot's own process stands still, Tune
would wait for its answer for ever, because Ray only notices processes that end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import ray
from ray import tune

from tune.ray_private import actor_of

GRACE_S = 180.0
"""How much longer than for an epoch a slot is waited for: its own deadline must come first, and it says more."""
LOOK_S = 5.0
"""How often slots are looked at."""


class Watchdog(tune.Callback):
    """Kills slots that said nothing for too long; Tune then repeats their trials in others.

    Args:
        step_timeout_s: see `resources.step_timeout_s`.
        kill: ends the process of a slot.
        clock: seconds.
    """

    def __init__(
        self,
        step_timeout_s: float,
        *,
        kill: Callable[[Any], None] = ray.kill,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s = step_timeout_s + GRACE_S
        self._kill, self._clock = kill, clock
        self._read_at = clock()
        self._awake_s = 0.0  # while this driver itself ran: one that was stopped has heard nothing of anybody
        self._looked_at = 0.0
        self._heard: dict[str, float] = {}  # trial that holds a slot -> when it was heard of

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A slot took a trial."""
        self._heard[trial.trial_id] = self._awake_s

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A slot reported."""
        self._heard[trial.trial_id] = self._awake_s

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called several times a second."""
        now = self._clock()
        self._awake_s += min(now - self._read_at, LOOK_S)
        self._read_at = now
        if self._awake_s - self._looked_at >= LOOK_S:
            self._looked_at = self._awake_s
            self._look({trial.trial_id: actor for trial in trials if (actor := actor_of(trial)) is not None})

    def _look(self, slots: dict[str, Any]) -> None:
        self._heard = {trial_id: self._heard.get(trial_id, self._awake_s) for trial_id in slots}
        for trial_id, slot in slots.items():
            if self._awake_s - self._heard[trial_id] >= self._limit_s:
                logging.getLogger("ray.tune").warning("slot of trial %s is silent and is killed", trial_id)
                self._heard[trial_id] = self._awake_s
                self._kill(slot)

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a pickle of its settings, which nobody asks."""
        return {}
