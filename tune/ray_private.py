"""All we take from Ray that is not public: a Ray Train run whose workers live in the placement group of its slot, and
silence.

Ray Train V2 makes a placement group of its own for its workers. When Tune kills a trial that group outlives it, and
two trials can wait for each other's groups for ever. Inside the group Tune made for the trial, reservation is atomic
and goes with the trial. Beside its workers a run has two more processes that each import half of Ray: a controller,
which runs in the slot's own process here, and an actor at which workers wait for each other, which one does without.
tests/tune/test_ray_private.py holds these names and their behaviour against the installed Ray; the version pinned in
pyproject.toml is one it accepts.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

import ray
from ray._private import state as ray_state
from ray._private import worker as ray_worker
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR, get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import state as group_state
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

POLL_S = 0.5
"""How often the controller looks after its workers; reports do not pass through it."""


class _BorrowedGroup(DefaultPlacementGroupHandle):
    def shutdown(self) -> None:
        """Does nothing: the group belongs to Tune, which removes it with the slot."""


class _NoBarrier:
    """Stands for the actor class at which workers of Ray Train wait for each other: one has nobody to wait for."""

    @classmethod
    def options(cls, **_: Any) -> type[_NoBarrier]:
        return cls

    @classmethod
    def remote(cls, **_: Any) -> _NoBarrier:
        return cls()


class _SlotWorkerGroup(WorkerGroup):
    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> DefaultPlacementGroupHandle:
        group = ray.util.get_current_placement_group()
        if group is None or len(group.bundle_specs) < worker_group_context.num_workers:
            raise RuntimeError(f"the slot's placement group is too small: {group and group.bundle_specs}")
        return _BorrowedGroup(group)

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, Any]:
        # A runtime environment, even an empty mapping of variables, costs a cold process; give one only if needed.
        variables = get_env_vars_to_propagate()
        return {"env_vars": variables} if variables else {}


class _SlotController(TrainController):
    worker_group_cls = _SlotWorkerGroup

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A process of its own that tells workers of a node about to go; ours write a checkpoint after every epoch.
        os.environ.setdefault(ENABLE_PREEMPTION_WATCHER_ENV_VAR, "0")
        super().__init__(*args, **kwargs)
        self._health_check_interval_s = POLL_S


class _HeldResources(FixedScalingPolicy):
    """The workers' resources are held already: asking the autoscaler for them again would add nodes, or keep them,
    for nothing, and costs an actor of its own."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Registers nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Asks for nothing."""


class SlotTrainer(DataParallelTrainer):
    """A Ray Train run, started by an actor of a Tune trial, whose worker i occupies bundle i of the trial's group.

    Not a TorchTrainer: one worker needs no process group, and neither slot nor controller has to import torch."""

    def _create_default_callbacks(self) -> list[Any]:
        # The cleaner would remove Tune's group, and without a dashboard it never ends. The other one starts a process
        # that imports Ray Data, just when the workers import torch, for data sets that we do not pass.
        dropped = (PlacementGroupCleanerCallback, DatasetsCallback)
        return [one for one in super()._create_default_callbacks() if not isinstance(one, dropped)]

    def _initialize_and_run_controller(self, **controller_kwargs: Any) -> Any:
        if ray.util.get_current_placement_group() is None:
            raise RuntimeError("a slot's worker group must be started inside a Tune trial's placement group")
        scaling: Any = self.scaling_config
        if scaling.num_workers == 1:
            _leave_out_barrier()
        controller_kwargs["scaling_policy"] = _HeldResources(scaling)
        controller: Any = _SlotController(**controller_kwargs)
        asyncio.run(controller.run())
        return controller.get_result()


def _leave_out_barrier() -> None:
    """For this process, which is a slot's and has no other run of Ray Train."""
    modules: Any = (worker_group, group_state)
    modules[0].SynchronizationActor = _NoBarrier
    modules[1]._shutdown_sync_actor = _end_barrier


def _end_barrier(barrier: Any) -> None:
    assert isinstance(barrier, _NoBarrier)


def actor_of(trial: Any) -> Any:
    """Handle of the actor that runs a trial of Tune's; None without one."""
    return trial.temporary_state.ray_actor


def forgive(trial: Any) -> None:
    """Takes back the last failure that Tune counted for a trial."""
    trial.run_metadata.num_failures -= 1


def blame(trial: Any) -> None:
    """Counts a failure of a trial that was taken back."""
    trial.run_metadata.num_failures += 1


def died_by_itself(actor_id: str) -> bool | None:
    """Whether an actor's process ended on its machine, by itself or because memory ran out there; False for other ends,
    such as its machine's; None while Ray takes it for alive."""
    found = ray_state.actors(actor_id)
    if found.get("State") != "DEAD":
        return None
    cause = found["DeathCause"]
    kind = cause.WhichOneof("context")
    if kind != "actor_died_error_context":
        return bool(kind == "oom_context")
    context = cause.actor_died_error_context
    return bool(context.reason == context.WORKER_DIED)


_TASK_FAILURE = TuneController._trial_task_failure


def keep_trials_between_slots() -> None:
    """A slot that dies just when it is given another trial costs that trial nothing: it is retried, as if its slot had
    died later. Tune hears of such a death twice, from the actor and from the task that resets it. The first puts the
    trial back among those that wait, and the second would end it there."""
    controller: Any = TuneController
    controller._trial_task_failure = _task_failure


def _task_failure(controller: Any, trial: Any, exception: Exception) -> None:
    if trial in controller._resetting_trials:  # the first
        controller._resetting_trials.remove(trial)
        controller._set_trial_status(trial, Trial.RUNNING)
    elif trial.status == Trial.PENDING:  # no other task runs for a trial that waits
        return
    task_failure: Any = _TASK_FAILURE
    task_failure(controller, trial, exception)


def hide_node_messages() -> None:
    """What Ray's nodes tell every driver goes to the logger `ray`, at level INFO, and not to standard output.

    `ray.init(log_to_driver=False)` does not keep it away. A slot has three processes, two of them idle, and a node
    that runs more than three for each of its cores says so again and again."""
    ray_worker.print_to_stdstream = _log


def _log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    for line in data["lines"]:
        logging.getLogger("ray").info(line)
