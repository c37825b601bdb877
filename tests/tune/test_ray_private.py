"""The names and signatures of Ray's inside that `tune.ray_private` rests on. Behaviour: test_study.py."""

from __future__ import annotations

import inspect
import logging
from importlib.metadata import requires, version

import pytest
from ray._private import state as ray_state
from ray._private import worker as ray_worker
from ray.core.generated.common_pb2 import ActorDeathCause, ActorDiedErrorContext
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import state as group_state
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState, WorkerGroupStateBuilder
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from tune.ray_private import SlotTrainer, _task_failure, actor_of, hide_node_messages


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


def test_the_controller_makes_its_worker_group_from_a_class_attribute() -> None:
    assert TrainController.worker_group_cls is WorkerGroup


def test_the_worker_group_makes_its_placement_group_in_one_method() -> None:
    expected = ["self", "scaling_config", "worker_group_context"]
    assert parameters(WorkerGroup._create_placement_group) == expected


def test_the_controller_keeps_its_poll_interval_in_an_attribute() -> None:
    assert "self._health_check_interval_s" in inspect.getsource(TrainController.__init__)


def test_the_controller_is_a_plain_class_whose_run_is_awaited() -> None:
    """It runs in the slot's process; nothing of its run needs an actor of its own."""
    assert inspect.iscoroutinefunction(TrainController.run)
    assert not inspect.iscoroutinefunction(TrainController.get_result)
    assert "current_actor" not in inspect.getsource(TrainController)


def test_the_barrier_of_workers_is_made_and_ended_through_two_names() -> None:
    """One worker does without it: `tune.team` calls what waits there for several only."""
    source = inspect.getsource(worker_group)
    assert source.count("SynchronizationActor.options(") == 1
    assert "sync_actor = SynchronizationActor.options(" in inspect.getsource(WorkerGroup._start_impl)
    assert parameters(group_state._shutdown_sync_actor) == ["sync_actor"]
    for function in (WorkerGroupState.shutdown, WorkerGroupStateBuilder.shutdown):
        assert "_shutdown_sync_actor(self.sync_actor)" in inspect.getsource(function)


def test_the_environment_of_workers_comes_from_one_method() -> None:
    assert parameters(WorkerGroup._get_worker_runtime_env) == ["custom_runtime_env"]
    assert "self._get_worker_runtime_env(" in inspect.getsource(WorkerGroup._create_workers)


def test_a_placement_group_is_given_back_in_shutdown() -> None:
    assert parameters(DefaultPlacementGroupHandle.shutdown) == ["self"]


def test_only_two_methods_of_the_scaling_policy_speak_to_the_autoscaler() -> None:
    assert parameters(FixedScalingPolicy.after_controller_start) == ["self", "train_run_context"]
    assert parameters(FixedScalingPolicy._maybe_send_resource_request) == ["self"]
    before_shutdown = FixedScalingPolicy(ScalingConfig())
    before_shutdown._cancel_resource_request()  # without a client, as in ours, it does nothing


def test_the_trainer_has_the_two_methods_we_replace() -> None:
    assert parameters(DataParallelTrainer._initialize_and_run_controller) == ["self", "controller_init_kwargs"]
    assert parameters(DataParallelTrainer._create_default_callbacks) == ["self"]


def test_two_callbacks_that_cost_processes_are_default_and_ours_goes_without() -> None:
    def kinds(trainer: DataParallelTrainer) -> set[type]:
        return {type(one) for one in trainer._create_default_callbacks()}

    dropped = {PlacementGroupCleanerCallback, DatasetsCallback}
    assert dropped <= kinds(DataParallelTrainer(lambda: None))
    assert dropped.isdisjoint(kinds(SlotTrainer(lambda: None)))


def test_workers_ask_for_data_sets_of_ray_only_if_there_are_any() -> None:
    assert inspect.signature(RayTrainWorker.init_train_context).parameters["dataset_shard_provider"].default is None


def test_the_preemption_watcher_can_be_left_out() -> None:
    assert "ENABLE_PREEMPTION_WATCHER_ENV_VAR" in inspect.getsource(TrainController.__init__)


def test_a_trial_of_tunes_keeps_its_actor_in_one_place() -> None:
    trial = Trial("none", stub=True)
    assert actor_of(trial) is None
    trial.temporary_state.ray_actor = "actor"
    assert actor_of(trial) == "actor"
    assert "self.temporary_state.ray_actor = ray_actor" in inspect.getsource(Trial.set_ray_actor)


def test_the_state_of_an_actor_names_why_it_ended() -> None:
    assert parameters(ray_state.actors)[0] == "actor_id"
    assert {"actor_died_error_context", "oom_context"} <= set(ActorDeathCause.DESCRIPTOR.fields_by_name)
    assert [one.name for one in ActorDeathCause.DESCRIPTOR.oneofs] == ["context"]
    assert {"WORKER_DIED", "NODE_DIED"} <= set(ActorDiedErrorContext.Reason.keys())


class Controller:
    """What Tune's controller does where a task of a slot failed, as far as it matters here."""

    def __init__(self, trial: Trial) -> None:
        self._resetting_trials = {trial}
        self._fail_fast, self.RAISE, self._print_trial_errors = False, "raise", False
        self.seen: list[str] = []

    def _set_trial_status(self, trial: Trial, status: str) -> None:
        trial.set_status(status)

    def _process_trial_failure(self, trial: Trial, exception: Exception) -> None:
        self.seen.append(trial.status)


def test_a_trial_whose_slot_dies_while_it_is_given_it_is_tried_again_once() -> None:
    """Tune recovers running trials only, one that is being reset is none yet, and it hears of the death twice."""
    source = inspect.getsource(TuneController._process_trial_failure)
    assert "trial.status == Trial.RUNNING and trial.should_recover()" in source
    assert "trial.status in {Trial.RUNNING, Trial.PENDING}" in source
    assert "on_error=self._trial_task_failure" in inspect.getsource(TuneController._schedule_trial_reset)
    assert "self._trial_task_failure(trial, exception=exception)" in inspect.getsource(TuneController._actor_failed)
    trial = Trial("none", stub=True)
    controller = Controller(trial)
    for _ in range(2):
        _task_failure(controller, trial, RuntimeError())
        trial.set_status(Trial.PENDING)  # as it is put back
    assert controller.seen == [Trial.RUNNING]
    assert not controller._resetting_trials


def test_messages_of_nodes_go_through_one_function_and_ours_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = inspect.getsource(ray_worker.listen_error_messages)
    assert source.count("print_to_stdstream(") == 1
    assert parameters(ray_worker.print_to_stdstream) == ["data", "ignore_prefix"]
    monkeypatch.setattr(ray_worker, "print_to_stdstream", ray_worker.print_to_stdstream)  # undone afterwards
    hide_node_messages()
    with caplog.at_level(logging.INFO, "ray"):
        ray_worker.print_to_stdstream({"lines": ["8 workers"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert set(caplog.messages) == {"8 workers"}
    assert "8 workers" not in capfd.readouterr().out


def test_the_version_that_is_installed_is_the_one_that_is_pinned() -> None:
    """These tests accept one Ray; pyproject.toml must ask for exactly it."""
    asked = [one.split(";")[0].strip() for one in requires("infosam") or [] if one.startswith("ray[")]
    assert asked
    assert {one.partition("==")[2] for one in asked} == {version("ray")}
