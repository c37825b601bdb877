"""The search itself: Ray Tune over warm slots, Optuna behind it, early stopping on the epochs we report.

Several sweeps, one for each domain, share one run of Tune and its slots; see `tune.joint`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from tune.broken_places import BrokenPlaces, NoPlaceLeft
from tune.callback import EventCallback
from tune.event_log import NAME, read_events
from tune.events import BudgetSpent, Listener
from tune.finals import Finals
from tune.footprint import Footprint
from tune.joint import JointCallback, JointScheduler, JointSearcher, JointStopper, Lane
from tune.ledger import Ledger
from tune.list_searcher import ListSearcher
from tune.node_loss import NodeLosses
from tune.plan import SweepPlan
from tune.ray_private import hide_node_messages, keep_trials_between_slots
from tune.refill import RefilledScheduler
from tune.resume import trials_left
from tune.schedulers import make_scheduler
from tune.searcher import OptunaSearcher
from tune.slot import Slot, slot_resources
from tune.slot_plan import SWEEP, SlotPlan, SweepJobs
from tune.stopping import Budget, Plateau, Stopping
from tune.watchdog import Watchdog
from tune.worker import WorkerSetup

SlotCount = int | Callable[[], int]


class DiskFull(RuntimeError):
    """Trials cannot keep their checkpoints, so the sweep was cut off."""


def never() -> bool:
    """Nobody asks the search to end."""
    return False


@dataclass(frozen=True, kw_only=True)
class Part:
    """One sweep among those that share the slots."""

    plan: SweepPlan
    ledger: Ledger  # what earlier drivers did, empty for a new sweep; it is told of all that happens
    listeners: Sequence[Listener] = ()  # told after it, in order
    shared: Sequence[Any] = ()  # of its images, what a machine has or makes for all processes; see `WorkerSetup`


def search(parts: Sequence[Part], *, folder: Path, slots: SlotCount, stop: Callable[[], bool] = never) -> bool:
    """Runs the trials of the sweeps that are left on the Ray that is connected; True if they were cut off by `stop`.

    Args:
        folder: for what Tune and the slots write; shared by all nodes.
        slots: trials at a time, see `tune.resources.count_slots`; where nodes may come and go, what says how many.
        stop: asked often; once it says True, trials that run are cut off and no other starts.

    Failed trials do not raise; a full disk does (DiskFull), and machines that cannot train at all (NoPlaceLeft)."""
    under_way: list[_Search] = []
    left = [part for part in parts if trials_left(part.ledger, part.plan.config)]
    broken = BrokenPlaces(parts[0].plan.config.resources, len(left))
    asked = _asked(stop, under_way, broken)
    under_way += [_Search(part, asked) for part in left]
    _run(under_way, parts, folder, "tune", slots, broken)
    _check(under_way, folder, broken)
    for one in under_way:
        one.tell_budget()
    # Of repeats, which come later, one may be open since an earlier driver.
    return stop() or any(trial.is_open for part in parts for trial in part.ledger.ranking())


def repeat(
    parts: Sequence[tuple[Part, Finals]], *, folder: Path, slots: SlotCount, stop: Callable[[], bool] = never
) -> bool:
    """Runs the repeats and twins that are left, each to its end, outside the studies; True if cut off by `stop`.

    Args: as for `search`; each `Finals` looks at its part's ledger."""
    if not parts:
        return stop()
    under_way: list[_Finale] = []
    shared = [part for part, _ in parts]
    left = [(part, finals) for part, finals in parts if finals.repeats() or finals.twins()]
    broken = BrokenPlaces(shared[0].plan.config.resources, len(left))
    asked = _asked(stop, under_way, broken)
    under_way += [_Finale(part, finals, asked) for part, finals in left]
    _run(under_way, shared, folder, "finals", slots, broken)
    _check(under_way, folder, broken)
    return stop() or any(trial.is_open for part in shared for trial in part.ledger.trials.values())


def quiet(verbose: bool) -> None:
    """Keeps the libraries' own messages off the terminal, unless asked for."""
    optuna.logging.set_verbosity(optuna.logging.INFO if verbose else optuna.logging.ERROR)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)
    if not verbose:
        hide_node_messages()


class _Search:
    """The search of one sweep: its study, its early stopping, its budget."""

    def __init__(self, part: Part, asked: Callable[[], bool]) -> None:
        plan, ledger = part.plan, part.ledger
        self._plan, self._ledger, self._asked = plan, ledger, asked
        self._budget = _budget(plan)
        stopping = Stopping(self._budget, Plateau(plan.config.scheduler, ledger), asked)
        self._searcher = _searcher(plan, ledger, self._budget)
        self.callback = EventCallback(ledger, [*part.listeners, self._budget, self._searcher], stopping.reason)
        scheduler = make_scheduler(plan.config.scheduler, plan.config.run.train.epochs)
        self.lane = Lane(
            sweep_id=plan.sweep_id,
            searcher=self._searcher,
            scheduler=RefilledScheduler(scheduler, ledger) if ledger.trials else scheduler,
            callback=self.callback,
            stopper=stopping,
            trials=trials_left(ledger, plan.config),
        )
        self._spent: str | None = None

    def close(self) -> None:
        """After the run of Tune, however it ended."""
        self._spent = None if self._asked() else self._budget.spent()
        self.callback.end_rest("budget" if self._spent else "user")
        self._searcher.close()

    def tell_budget(self) -> None:
        """Why there were fewer trials than wanted, if the budget is the reason."""
        if self._spent and trials_left(self._ledger, self._plan.config):
            self.callback.tell(BudgetSpent(what=self._spent))


class _Finale:
    """The repeats and twins of one sweep."""

    def __init__(self, part: Part, finals: Finals, asked: Callable[[], bool]) -> None:
        self.callback = EventCallback(part.ledger, part.listeners)
        self.lane = Lane(
            sweep_id=part.plan.sweep_id,
            searcher=ListSearcher(finals.repeats(), finals.twins),
            scheduler=FIFOScheduler(),
            callback=self.callback,
            stopper=_StopAll(asked),
            trials=finals.most_trials,
        )

    def close(self) -> None:
        """As `_Search.close`."""
        self.callback.end_rest()


def _asked(
    stop: Callable[[], bool], under_way: Sequence[_Search] | Sequence[_Finale], broken: BrokenPlaces
) -> Callable[[], bool]:
    """Whether all are to end at once: a disk that is full for one sweep is full for the others."""
    return lambda: (
        stop() or broken.none_left is not None or any(one.callback.disk_full is not None for one in under_way)
    )


def _check(under_way: Sequence[_Search] | Sequence[_Finale], folder: Path, broken: BrokenPlaces) -> None:
    """Raises what ended the run of Tune for all."""
    full = next((one.callback.disk_full for one in under_way if one.callback.disk_full is not None), None)
    if full is not None:
        raise DiskFull(f"{full}; make room for {folder}")
    if broken.none_left is not None:
        raise NoPlaceLeft(broken.none_left)


def _run(
    under_way: Sequence[_Search] | Sequence[_Finale],
    parts: Sequence[Part],
    folder: Path,
    name: str,
    slots: SlotCount,
    broken: BrokenPlaces,
) -> None:
    """One run of Tune over these; all are closed at its end, whatever happens."""
    with ExitStack() as stack:
        stack.callback(broken.close)
        for one in under_way:
            stack.callback(one.close)
        if under_way:
            keep_trials_between_slots()
            lanes = [one.lane for one in under_way]
            _tuner(lanes, parts, folder=folder, name=name, slots=slots, broken=broken).fit()


def _tuner(
    lanes: Sequence[Lane],
    parts: Sequence[Part],
    *,
    folder: Path,
    name: str,
    slots: SlotCount,
    broken: BrokenPlaces,
) -> tune.Tuner:
    resources = parts[0].plan.config.resources  # all share them
    trials = sum(lane.trials for lane in lanes)
    return tune.Tuner(
        tune.with_resources(
            tune.with_parameters(Slot, plan=_slot_plan(parts, folder)),
            slot_resources(resources.bundle, resources.workers_per_trial),
        ),
        tune_config=tune.TuneConfig(
            metric=None,
            search_alg=JointSearcher(lanes, _asked_again(slots)),
            num_samples=trials,
            # The searcher says how many; to Tune it is how many may wait for their processors at once.
            max_concurrent_trials=trials if callable(slots) else slots,
            scheduler=JointScheduler(lanes),
            reuse_actors=True,
            trial_name_creator=_name_of,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name=_unused(folder, name),
            storage_path=str(folder),
            stop=JointStopper(lanes),
            verbose=0,
            callbacks=[JointCallback(lanes), NodeLosses(), broken, Watchdog(resources.step_timeout_s)],
            failure_config=tune.FailureConfig(max_failures=resources.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )


def _asked_again(slots: SlotCount) -> Callable[[], int]:
    """A number that does not change answers always the same."""
    if callable(slots):
        return slots
    fixed: int = slots
    return lambda: fixed


def _name_of(trial: Any) -> str:
    """Of a trial among those of all its sweeps."""
    return f"{trial.config[SWEEP]}-{trial.config['trial']}"


def _budget(plan: SweepPlan) -> Budget:
    """What earlier drivers left of it."""
    resources, log = plan.config.resources, plan.folder / NAME
    budget = Budget(plan.config.budget, gpus=resources.gpus_per_worker * resources.workers_per_trial)
    return budget.replay(event for event, _ in read_events(log)) if log.exists() else budget


def _searcher(plan: SweepPlan, ledger: Ledger, budget: Budget) -> OptunaSearcher:
    config = plan.config
    journal = plan.folder / "study.journal" if config.search.storage == "journal" else None
    footprint, spent = Footprint(config.run, config.constraints), lambda: budget.spent() is not None
    one, owner = (config.space, config.search, plan.sweep_id, journal), ledger.mark or ""
    if ledger.trials or (ledger.sweep is not None and ledger.sweep.resumed):
        return OptunaSearcher.resume(*one, ledger, footprint, spent, owner=owner)
    return OptunaSearcher(*one, footprint, spent, owner=owner)


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


def _slot_plan(parts: Sequence[Part], folder: Path) -> SlotPlan:
    plans = [part.plan for part in parts]
    first = plans[0]
    resources = first.config.resources
    return SlotPlan(
        folder=str(folder),
        sweeps={
            plan.sweep_id: SweepJobs(
                folder=str(plan.folder),
                run=plan.config.run.model_dump(mode="json"),
                data=str(plan.config.data),
                mirror=plan.mirror,
            )
            for plan in plans
        },
        worker=WorkerSetup(
            training=first.training,
            model=first.config.run.model.model_dump(mode="json"),
            device=first.device,
            threads=max(1, int(resources.cpus_per_worker)),
            backend="cpu:gloo,cuda:nccl" if resources.gpus_per_worker >= 1 else "gloo",  # NCCL wants whole GPUs
            exchange_timeout_s=resources.step_timeout_s,
            stores=str(first.stores) if first.stores else None,
            stores_limit_bytes=first.stores_limit_bytes,
            shared={str(part.plan.config.data): tuple(part.shared) for part in parts},
            gpu_share=resources.gpus_per_worker,
            fetch=resources.fetch,
        ),
        workers=resources.workers_per_trial,
        bundle=resources.bundle,
        step_timeout_s=resources.step_timeout_s,
        max_failures=resources.max_failures,
    )
