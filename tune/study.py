"""The search itself: Ray Tune over warm slots, Optuna behind it, early stopping on the epochs we report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tune.callback import EventCallback
from tune.event_log import NAME, read_events
from tune.events import BudgetSpent, Listener
from tune.finals import Finals
from tune.footprint import Footprint
from tune.ledger import Ledger
from tune.list_searcher import ListSearcher
from tune.plan import SweepPlan
from tune.ray_private import hide_node_messages
from tune.refill import RefilledScheduler
from tune.resume import trials_left
from tune.schedulers import make_scheduler
from tune.searcher import OptunaSearcher
from tune.slot import Slot, slot_resources
from tune.slot_plan import SlotPlan
from tune.stopping import Budget, Plateau, Stopping
from tune.worker import WorkerSetup


class DiskFull(RuntimeError):
    """Trials cannot keep their checkpoints, so the sweep was cut off."""


def never() -> bool:
    """Nobody asks the search to end."""
    return False


def search(
    plan: SweepPlan,
    *,
    slots: int,
    ledger: Ledger,
    listeners: Sequence[Listener] = (),
    stop: Callable[[], bool] = never,
) -> bool:
    """Runs the trials of a sweep that are left on the Ray that is connected; True if it was cut off by `stop`.

    Args:
        slots: trials at a time, see `tune.resources.count_slots`.
        ledger: what earlier drivers of the sweep did, empty for a new one; it is told of all that happens.
        listeners: told after it, in order.
        stop: asked often; once it says True, trials that run are cut off and no other starts.

    Failed trials do not raise."""
    left = trials_left(ledger, plan.config)
    if not left:
        return False
    budget = _budget(plan)
    plateau = Plateau(plan.config.scheduler, ledger)
    stopping = Stopping(budget, plateau, lambda: stop() or callback.disk_full is not None)
    searcher = _searcher(plan, ledger, budget)
    scheduler = make_scheduler(plan.config.scheduler, plan.config.run.train.epochs)
    if ledger.trials:
        scheduler = RefilledScheduler(scheduler, ledger)
    callback = EventCallback(ledger, [*listeners, budget, searcher], stopping.reason)
    try:
        _tuner(plan, searcher, scheduler, callback, stopping, trials=left, slots=slots, name="tune").fit()
    finally:
        spent = None if stop() else budget.spent()
        callback.end_rest("budget" if spent else "user")
        searcher.close()
    _check_disk(plan, callback)
    if spent and trials_left(ledger, plan.config):
        callback.tell(BudgetSpent(what=spent))
    return stop() or any(trial.is_open for trial in ledger.trials.values())


def repeat(
    plan: SweepPlan,
    finals: Finals,
    *,
    slots: int,
    ledger: Ledger,
    listeners: Sequence[Listener] = (),
    stop: Callable[[], bool] = never,
) -> bool:
    """Runs the repeats and twins that are left, each to its end, outside the study; True if it was cut off by `stop`.

    Args: as for `search`; `finals` looks at the same ledger."""
    first = finals.repeats()
    if not first and not finals.twins():
        return False
    callback, searcher = EventCallback(ledger, listeners), ListSearcher(first, finals.twins)
    try:
        stopper = _StopAll(lambda: stop() or callback.disk_full is not None)
        trials = finals.most_trials
        _tuner(plan, searcher, FIFOScheduler(), callback, stopper, trials=trials, slots=slots, name="finals").fit()
    finally:
        callback.end_rest()
    _check_disk(plan, callback)
    return stop() or any(trial.is_open for trial in ledger.trials.values())


def quiet(verbose: bool) -> None:
    """Keeps the libraries' own messages off the terminal, unless asked for."""
    optuna.logging.set_verbosity(optuna.logging.INFO if verbose else optuna.logging.ERROR)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)
    if not verbose:
        hide_node_messages()


def _tuner(
    plan: SweepPlan,
    searcher: Searcher,
    scheduler: TrialScheduler,
    callback: EventCallback,
    stopper: tune.Stopper,
    *,
    trials: int,
    slots: int,
    name: str,
) -> tune.Tuner:
    resources = plan.config.resources
    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(Slot, plan=_slot_plan(plan)),
            slot_resources(resources.bundle, resources.workers_per_trial),
        ),
        tune_config=tune.TuneConfig(
            metric=None,
            search_alg=searcher,
            num_samples=trials,
            max_concurrent_trials=slots,
            scheduler=scheduler,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"{plan.sweep_id}-{trial.config['trial']}",
            trial_dirname_creator=lambda trial: trial.config["trial"],
        ),
        run_config=tune.RunConfig(
            name=_unused(plan.folder, name),
            storage_path=str(plan.folder),
            stop=stopper,
            verbose=0,
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=resources.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )


def _check_disk(plan: SweepPlan, callback: EventCallback) -> None:
    if callback.disk_full is not None:
        raise DiskFull(f"{callback.disk_full}; make room for {plan.folder}")


def _budget(plan: SweepPlan) -> Budget:
    """What earlier drivers left of it."""
    resources, log = plan.config.resources, plan.folder / NAME
    budget = Budget(plan.config.budget, gpus=resources.gpus_per_worker * resources.workers_per_trial)
    return budget.replay(event for event, _ in read_events(log)) if log.exists() else budget


def _searcher(plan: SweepPlan, ledger: Ledger, budget: Budget) -> OptunaSearcher:
    config = plan.config
    journal = plan.folder / "study.journal" if config.search.storage == "journal" else None
    footprint, spent = Footprint(config.run, config.constraints), lambda: budget.spent() is not None
    if ledger.trials or (ledger.sweep is not None and ledger.sweep.resumed):
        return OptunaSearcher.resume(config.space, config.search, plan.sweep_id, journal, ledger, footprint, spent)
    return OptunaSearcher(config.space, config.search, plan.sweep_id, journal, footprint, spent)


class _StopAll(tune.Stopper):
    """Ends the whole run of Tune between two results."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._asked()

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a pickled copy of its settings, which nobody asks."""
        return {"_asked": never}


def _unused(folder: Path, name: str) -> str:
    """A name for a run of Tune that no earlier driver of the sweep took."""
    taken = sum(path.name == name or path.name.rpartition("-")[0] == name for path in folder.iterdir())
    return f"{name}-{taken + 1}" if taken else name


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
            backend="cpu:gloo,cuda:nccl" if resources.gpus_per_worker >= 1 else "gloo",  # NCCL wants whole GPUs
            exchange_timeout_s=resources.step_timeout_s,
        ),
        workers=resources.workers_per_trial,
        bundle=resources.bundle,
        step_timeout_s=resources.step_timeout_s,
        max_failures=resources.max_failures,
    )
