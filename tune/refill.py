"""A scheduler that knows what the trials of an earlier driver reported, so that early stopping goes on as if it had
seen them itself.

Its memory is filled by the same calls that filled that of the earlier one, in the order of the reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune.events import OBJECTIVE, EpochReported
from tune.ledger import Ledger, TrialRecord


@dataclass(frozen=True)
class _PastTrial:
    """What a scheduler asks of a trial."""

    trial_id: str


class _NoController:
    """What a scheduler asks of Tune while it only remembers."""

    def get_live_trials(self) -> list[Any]:
        return []


class RefilledScheduler(FIFOScheduler):
    """Another scheduler, filled with the past.

    Trials that ended are told at once under their old names. One that goes on gets another name in Tune, so its past is
    told when it comes; its last report is not, because training repeats it and it may not have been answered.

    Args:
        inner: fresh; decides everything.
        ledger: of the earlier drivers; later changes of it do not matter.
    """

    def __init__(self, inner: TrialScheduler, ledger: Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner: Any = inner
        self._waiting = {
            trial.trial_id: list(trial.epochs[:-1]) for trial in ledger.ranking() if trial.is_open and trial.epochs
        }
        self._tell_past([trial for trial in ledger.ranking() if not trial.is_open])

    def _tell_past(self, trials: list[TrialRecord]) -> None:
        nobody, names = _NoController(), {trial.trial_id: _PastTrial(trial.trial_id) for trial in trials}
        for trial in trials:
            self._inner.on_trial_add(nobody, names[trial.trial_id])
        reports = [epoch for trial in trials for epoch in trial.epochs]
        for report in sorted(reports, key=lambda one: one.at):
            self._inner.on_trial_result(nobody, names[report.trial_id], _row(report))
        for trial in trials:
            if trial.epochs and trial.end is not None and trial.end.state != "FAILED":
                self._inner.on_trial_complete(nobody, names[trial.trial_id], _row(trial.epochs[-1]))

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """As the inner one."""
        return bool(self._inner.set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or one that goes on: then with its past."""
        self._inner.on_trial_add(tune_controller, trial)
        for report in self._waiting.pop(trial.config["trial"], []):
            self._inner.on_trial_result(_NoController(), trial, _row(report))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """As the inner one."""
        self._inner.on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """As the inner one."""
        return str(self._inner.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """As the inner one."""
        self._inner.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """As the inner one."""
        self._inner.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """As the inner one."""
        return self._inner.choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """As the inner one."""
        return str(self._inner.debug_string())


def _row(report: EpochReported) -> dict[str, Any]:
    return {"epoch": report.epoch, OBJECTIVE: report.values[OBJECTIVE]}
