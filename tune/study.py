"""The search itself: Ray Tune over warm slots, Optuna behind it, early stopping on the epochs we report."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from tune.callback import EventCallback
from tune.config import SchedulerConfig
from tune.events import OBJECTIVE, Listener
from tune.plan import SweepPlan
from tune.searcher import OptunaSearcher
from tune.slot import Slot, SlotPlan, slot_resources
from tune.worker import WorkerSetup


def search(plan: SweepPlan, *, slots: int, listeners: Sequence[Listener]) -> bool:
    """Runs the trials of a sweep on the Ray that is connected; True if it was cut off, by Ctrl-C.

    Args:
        slots: trials at a time, see `tune.resources.count_slots`.
        listeners: told of everything that happens, in order.

    Failed trials do not raise."""
    config, folder = plan.config, plan.folder
    journal = folder / "study.journal" if config.search.storage == "journal" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        searcher = OptunaSearcher(config.space, config.search, study_name=plan.sweep_id, journal=journal)
    callback = EventCallback(listeners)
    trainable = tune.with_resources(
        tune.with_parameters(Slot, plan=_slot_plan(plan)),
        slot_resources(config.resources.bundle),
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=None,
            search_alg=searcher,
            num_samples=config.search.trials,
            max_concurrent_trials=slots,
            scheduler=_scheduler(config.scheduler, config.run.train.epochs),
            reuse_actors=True,
            trial_name_creator=lambda trial: f"{plan.sweep_id}-{trial.config['trial']}",
            trial_dirname_creator=lambda trial: trial.config["trial"],
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=config.resources.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
    finally:
        searcher.close()
        cut_off = _count_cut_off(callback)
    return cut_off or len(callback.ended) < config.search.trials


def quiet(verbose: bool) -> None:
    """Keeps the libraries' own messages off the terminal, unless asked for."""
    optuna.logging.set_verbosity(optuna.logging.INFO if verbose else optuna.logging.ERROR)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)


def _count_cut_off(callback: EventCallback) -> bool:
    before = len(callback.ended)
    callback.end_rest()
    return len(callback.ended) > before


def _scheduler(config: SchedulerConfig, epochs: int) -> TrialScheduler:
    if config.kind == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epoch",
        metric=OBJECTIVE,
        mode="max",
        max_t=epochs,
        grace_period=config.grace_epochs,
        reduction_factor=config.reduction,
    )


def _slot_plan(plan: SweepPlan) -> SlotPlan:
    run, resources = plan.config.run, plan.config.resources
    return SlotPlan(
        folder=str(plan.folder),
        run=run.model_dump(mode="json"),
        worker=WorkerSetup(
            training=plan.training,
            model=run.model.model_dump(mode="json"),
            data=str(plan.config.data),
            device=plan.device,
            threads=max(1, int(resources.cpus_per_worker)),
        ),
        bundle=resources.bundle,
        step_timeout_s=resources.step_timeout_s,
        max_failures=resources.max_failures,
    )
