"""A warm slot: one Tune actor that keeps one Ray Train worker group and gives it trial after trial.

Starting a trial in fresh processes costs tens of seconds of imports; a slot pays them once. The group lives inside the
placement group Tune made for the slot (`ray_private`), so Tune's accounting is exact and nothing outlives the sweep.
A worker that dies is restarted by Ray Train and resumes the same trial; a slot that dies is replaced by Tune."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import train, tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune.feed import Feed
from tune.node_loss import NODE_DIED, LostWorkers
from tune.ray_private import SlotTrainer
from tune.slot_plan import SlotPlan, result_of
from tune.worker import Failure, Message, work

TAKE_S = 2.0
"""Longest single wait for the feed, so that a dead worker group is noticed."""
JOIN_S = 5.0
"""Longest wait for the worker group to end by itself."""
CALL_S = 120.0
"""Longest wait for an answer of the feed, which may have to be started first; it answers at once."""
RESTARTS: dict[str, Any] = {"max_failures": 8, "controller_failure_limit": 3}
"""What a slot survives over its life: deaths of its workers and failed starts. The feed limits those of one trial."""


class SlotBroken(RuntimeError):
    """A slot cannot train; Tune replaces it and repeats the trial."""


def slot_resources(bundle: Mapping[str, float], workers: int = 1) -> tune.PlacementGroupFactory:
    """The empty head is the slot's own actor: only its workers occupy anything, on as few nodes as hold them."""
    return tune.PlacementGroupFactory([{}] + [dict(bundle)] * workers, strategy="PACK")


class Slot(tune.Trainable):
    """Tune's view of a slot: `setup` starts it, `reset_config` gives it another trial, `step` is one epoch."""

    def setup(self, config: dict[str, Any], plan: SlotPlan | None = None) -> None:
        """Starts the worker group in the background; `step` waits for it."""
        assert plan is not None, "pass the plan through tune.with_parameters"
        self._plan = plan
        feed_class: Any = ray.remote(num_cpus=0)(Feed)
        # On another node of the trial it would be one more loss that ends the slot.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._feed = feed_class.options(scheduling_strategy=here).remote(plan.max_failures + 1, plan.workers)
        self._death: str | None = None
        self._thread = threading.Thread(target=self._keep_worker_group, daemon=True)
        self._thread.start()  # before the first trial is assigned: both start processes, and that takes seconds
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Makes another trial the current one; the workers drop the old one between two epochs."""
        self._version = ray.get(self._feed.assign.remote(self._plan.job(new_config)), timeout=CALL_S)
        return True

    def step(self) -> dict[str, Any]:
        """Waits for the next report of the trial. Raises SlotBroken if the workers are gone or time is up."""
        message = self._take()
        if isinstance(message, Failure) and message.fatal:
            raise SlotBroken(f"the training process cannot start on node {message.node}: {message.error}")
        return result_of(message)

    def cleanup(self) -> None:
        """Ends the worker group: asked first, and killed with this actor if it does not answer in time."""
        with contextlib.suppress(ray.exceptions.RayError):  # a feed that died has nobody to close
            ray.get(self._feed.close.remote(), timeout=CALL_S)
        self._thread.join(JOIN_S)

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing of its own: trials keep their checkpoints in the sweep's folder and resume from there."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """See `save_checkpoint`."""

    def _take(self) -> Message:
        deadline = time.monotonic() + self._plan.step_timeout_s
        while time.monotonic() < deadline:
            message: Message | None = ray.get(self._feed.take.remote(self._version, TAKE_S), timeout=TAKE_S + CALL_S)
            if message is not None:
                return message
            if not self._thread.is_alive():
                raise SlotBroken(f"the worker group ended: {self._death or 'no reason given'}")
        raise SlotBroken(
            f"no report for {self._plan.step_timeout_s:g} s (resources.step_timeout_s); "
            f"feed: {ray.get(self._feed.state.remote(), timeout=CALL_S)}"
        )

    def _keep_worker_group(self) -> None:
        plan = self._plan
        watch: Any = LostWorkers(self._feed)  # Ray's types know the callbacks of its first version only
        trainer = SlotTrainer(
            work,
            train_loop_config={"setup": plan.worker, "feed": self._feed},
            scaling_config=train.ScalingConfig(
                num_workers=plan.workers,
                use_gpu=plan.bundle.get("GPU", 0) > 0,
                resources_per_worker=dict(plan.bundle),
            ),
            run_config=train.RunConfig(
                name=f"slot-{ray.get_runtime_context().get_actor_id()}",
                storage_path=str(Path(plan.folder) / "slots"),
                failure_config=train.FailureConfig(**RESTARTS),
                callbacks=[watch],
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 - `step` reports it, whatever it was
            self._death = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
            if watch.waits:
                self._death += f"; no room was found for a process that is gone because {NODE_DIED}"
