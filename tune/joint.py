"""Several sweeps in one run of Tune, on the same slots: each trial names its sweep, and what Tune asks or tells goes to
that sweep's own searcher, scheduler, callback and stopper. So no sweep ever learns from, or is compared with, the
trials of another; one sweep alone goes the same way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tune.events import OBJECTIVE
from tune.slot_plan import SWEEP


@dataclass(frozen=True, kw_only=True)
class Lane:
    """What one sweep brings to a run of Tune."""

    sweep_id: str
    searcher: Searcher
    scheduler: TrialScheduler
    callback: tune.Callback
    stopper: tune.Stopper
    trials: int  # most that it may suggest


class JointSearcher(Searcher):
    """Takes suggestions from the lanes in turn, so that each sweep with trials left has its share of the slots, and no
    slot idles while any of them has one.

    Args: slots: trials at a time, asked before each suggestion."""

    def __init__(self, lanes: Sequence[Lane], slots: Callable[[], int]) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._slots = slots
        self._turns = deque(lanes)
        self._left = {lane.sweep_id: lane.trials for lane in lanes}
        self._owners: dict[str, Searcher] = {}  # Tune's id of a trial -> who suggested it

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial of the first lane in turn that has one; None while all slots are taken, or all lanes that have
        some left wait for others; FINISHED when none has."""
        if len(self._owners) >= self._slots() and any(self._left.values()):
            return None
        for _ in range(len(self._turns)):
            lane = self._turns.popleft()
            has_more = self._left[lane.sweep_id] > 0
            found: dict[str, Any] | str | None = lane.searcher.suggest(trial_id) if has_more else Searcher.FINISHED
            if isinstance(found, str):  # FINISHED is the only one
                continue
            self._turns.append(lane)
            if found is not None:
                self._left[lane.sweep_id] -= 1
                self._owners[trial_id] = lane.searcher
                return {**found, SWEEP: lane.sweep_id}
        return None if self._turns else str(Searcher.FINISHED)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """True: `suggest` itself sees to it."""
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """To the lane that suggested it."""
        self._owners.pop(trial_id).on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what was run is in the event logs, and the lanes are made anew from those."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a pickle of its settings; lanes are not for that file."""
        return {"_metric": self._metric, "_mode": self._mode}


class JointScheduler(FIFOScheduler):
    """Asks the scheduler of a trial's own lane; which trial starts next is first come, first served."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._schedulers: Mapping[str, Any] = {lane.sweep_id: lane.scheduler for lane in lanes}
        self._places: dict[str, int] = {}  # trial -> how many came before

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """To all of them."""
        return all([one.set_search_properties(metric, mode, **spec) for one in self._schedulers.values()])

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """To its own."""
        self._places.setdefault(trial.trial_id, len(self._places))
        self._of(trial).on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first that waits, as in FIFOScheduler, which looks at all trials there ever were, at every turn."""
        live = tune_controller.get_live_trials()
        for status in (Trial.PENDING, Trial.PAUSED):
            waiting = [trial for trial in live if trial.status == status]
            if waiting:
                return min(waiting, key=lambda trial: self._places[trial.trial_id])
        return None

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """To its own."""
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """What its own says."""
        return str(self._of(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """To its own."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """To its own."""
        self._of(trial).on_trial_remove(tune_controller, trial)

    def _of(self, trial: Any) -> Any:
        return self._schedulers[trial.config[SWEEP]]


class JointCallback(tune.Callback):
    """Passes what happens to a trial on to its own lane's callback."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._callbacks = {lane.sweep_id: lane.callback for lane in lanes}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """To its own."""
        self._of(trial).on_trial_start(iteration, trials, trial, **info)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """To its own."""
        self._of(trial).on_trial_result(iteration, trials, trial, result, **info)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """To its own."""
        self._of(trial).on_trial_recover(iteration, trials, trial, **info)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """To its own."""
        self._of(trial).on_trial_complete(iteration, trials, trial, **info)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """To its own."""
        self._of(trial).on_trial_error(iteration, trials, trial, **info)

    def _of(self, trial: Any) -> tune.Callback:
        return self._callbacks[trial.config[SWEEP]]


class JointStopper(tune.Stopper):
    """Ends a trial when its own lane's stopper says so, and the run of Tune when all of them do."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._stoppers = {lane.sweep_id: lane.stopper for lane in lanes}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends with this report."""
        return self._stoppers[result["config"][SWEEP]](trial_id, result)

    def stop_all(self) -> bool:
        """Whether no lane has anything left to wait for."""
        return all(stopper.stop_all() for stopper in self._stoppers.values())
