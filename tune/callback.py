"""From Ray Tune's hooks to events. Hooks run inside Tune's loop, so they only pass facts on and never raise."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune

from tune.events import EpochReported, Event, Listener, TrialEnded, TrialRetried, TrialStarted
from tune.worker import Failure, Report


class EventCallback(tune.Callback):
    """Tells every listener what happens to the trials of a sweep."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = list(listeners)
        self._ids: dict[str, str] = {}
        self._last: dict[str, Report | Failure] = {}
        self.ended: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial got a slot; again after its slot was replaced, which is told as a retry already."""
        if trial.trial_id not in self._ids:
            self._ids[trial.trial_id] = trial.config["trial"]
            self._tell(TrialStarted(trial_id=trial.config["trial"], values=trial.config["values"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch, or the message that the trial failed."""
        report = result.get("report")
        before = self._last.get(trial.trial_id)
        if report is None:
            return
        self._last[trial.trial_id] = report
        repeated = isinstance(before, Report) and isinstance(report, Report) and before.epoch == report.epoch
        if isinstance(report, Report) and not repeated:
            self._tell(
                EpochReported(
                    trial_id=self._ids[trial.trial_id],
                    epoch=report.epoch,
                    values=report.values,
                    checkpoint=report.checkpoint,
                    is_best=report.is_best,
                )
            )

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The slot of a trial died and another will take it."""
        self._tell(TrialRetried(trial_id=trial.config["trial"], error=_last_line(trial)))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The regular end: all epochs, stopped by the scheduler, failed alone, or cut off with the sweep."""
        report = self._last.get(trial.trial_id)
        trial_id = trial.config["trial"]
        if isinstance(report, Failure):
            end = TrialEnded(trial_id=trial_id, state="FAILED", reason="error", error=report.error, trace=report.trace)
        elif isinstance(report, Report) and report.completed:
            end = TrialEnded(trial_id=trial_id, state="FINISHED", reason="completed")
        elif (trial.last_result or {}).get("done"):
            end = TrialEnded(trial_id=trial_id, state="KILLED", reason="early_stopped")
        else:
            end = TrialEnded(trial_id=trial_id, state="KILLED", reason="user")
        self._end(trial, end)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial whose slot died once too often."""
        self._end(
            trial,
            TrialEnded(
                trial_id=trial.config["trial"],
                state="FAILED",
                reason="error",
                error=_last_line(trial),
                trace=_trace(trial),
            ),
        )

    def end_rest(self) -> None:
        """After the sweep, however it ended: trials that are still open were cut off by the user."""
        for trial_id in self._ids.values():
            if trial_id not in self.ended:
                self.ended.add(trial_id)
                self._tell(TrialEnded(trial_id=trial_id, state="KILLED", reason="user"))

    def __getstate__(self) -> dict[str, Any]:
        """Listeners hold files and threads; a pickled copy of this callback is silent."""
        return {**self.__dict__, "_listeners": []}

    def _end(self, trial: Any, end: TrialEnded) -> None:
        if trial.trial_id not in self._ids:  # it never started: nothing to close
            return
        if end.trial_id not in self.ended:
            self.ended.add(end.trial_id)
            self._tell(end)

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - Tune does not catch it, and no listener is worth the sweep
                warnings.warn(f"{type(listener).__name__} lost a {type(event).__name__}: {error}", stacklevel=2)


def _trace(trial: Any) -> str:
    """What Tune wrote about the last failure of a trial; empty if nothing."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return ""
    return text.rsplit("Failure # ", 1)[-1].strip()


def _last_line(trial: Any) -> str:
    lines = _trace(trial).splitlines()
    return lines[-1].strip() if lines else "the process of the trial died"
