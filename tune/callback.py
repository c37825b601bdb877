"""From Ray Tune's hooks to events. Hooks run inside Tune's loop, so they only pass facts on and never raise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from tune.events import EpochReported, Event, Listener, StopReason, TrialEnded, TrialRetried, TrialStarted
from tune.ledger import Ledger
from tune.worker import Failure, Report


class EventCallback(tune.Callback):
    """Tells the ledger, then every listener, what happens to the trials of a sweep.

    Args:
        ledger: with what earlier drivers of the sweep told, so that nothing is told twice.
        listeners: in order; the log belongs first.
        reason: why a trial was stopped before its last epoch, by its id.
    """

    def __init__(
        self,
        ledger: Ledger,
        listeners: Sequence[Listener],
        reason: Callable[[str], StopReason] = lambda trial_id: "early_stopped",
    ) -> None:
        self._ledger = ledger
        self._reason = reason
        self._listeners: list[Listener] = [ledger, *listeners]
        self._ids: dict[str, str] = {}
        self._last: dict[str, Report | Failure] = {}
        self._starts: dict[str, int] = {}  # of the processes of a trial, in the slot that it has
        self.disk_full: str | None = None  # what a trial said that could not keep its checkpoint

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial got a slot; again after its slot was replaced, which is told as a retry already."""
        if trial.trial_id not in self._ids:
            self._ids[trial.trial_id] = trial.config["trial"]
            self.tell(TrialStarted(trial_id=trial.config["trial"], values=trial.config["values"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch, or the message that the trial failed."""
        report = result.get("report")
        if report is None:
            return
        self._last[trial.trial_id] = report
        self._tell_restarts(trial, report.starts)
        if isinstance(report, Failure) and report.disk_full:
            self.disk_full = report.error
        # A trial that lost its process or its driver begins with the epoch of its checkpoint, told already or not.
        if isinstance(report, Report) and not self._is_told(trial, report.epoch):
            self.tell(
                EpochReported(
                    trial_id=self._ids[trial.trial_id],
                    epoch=report.epoch,
                    values=report.values,
                    checkpoint=report.checkpoint,
                    is_best=report.is_best,
                )
            )

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The slot of a trial died and another will take it; one that died before the trial began cost it nothing."""
        self._starts.pop(trial.trial_id, None)
        if trial.trial_id in self._ids:
            self.tell(TrialRetried(trial_id=trial.config["trial"], error=_last_line(trial)))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The regular end: all epochs, stopped by the scheduler, failed alone, or cut off with the sweep."""
        report = self._last.get(trial.trial_id)
        trial_id = trial.config["trial"]
        if isinstance(report, Failure) and report.disk_full:
            return  # not its fault, and no other would fare better: the sweep is cut off and goes on later
        if isinstance(report, Failure):
            end = TrialEnded(trial_id=trial_id, state="FAILED", reason="error", error=report.error, trace=report.trace)
        elif isinstance(report, Report) and report.completed:
            end = TrialEnded(trial_id=trial_id, state="FINISHED", reason="completed")
        elif (trial.last_result or {}).get("done"):
            end = TrialEnded(trial_id=trial_id, state="KILLED", reason=self._reason(trial_id))
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
                trace=last_failure(trial),
            ),
        )

    def end_rest(self, reason: StopReason = "user") -> None:
        """After the search, however it ended: trials that are open, if only from an earlier driver, are cut off."""
        for trial in list(self._ledger.trials.values()):
            if trial.end is None:
                self.tell(TrialEnded(trial_id=trial.trial_id, state="KILLED", reason=reason))

    def __getstate__(self) -> dict[str, Any]:
        """Listeners hold files and threads; a pickled copy of this callback is silent."""
        return {**self.__dict__, "_ledger": None, "_listeners": [], "_reason": None}

    def _tell_restarts(self, trial: Any, starts: int) -> None:
        """Training processes that died inside a slot, which Ray Train restarts without a word to Tune."""
        for _ in range(self._starts.get(trial.trial_id, 1), starts):
            self.tell(TrialRetried(trial_id=self._ids[trial.trial_id], error="a training process of the trial died"))
        self._starts[trial.trial_id] = starts

    def _is_told(self, trial: Any, epoch: int) -> bool:
        return any(one.epoch == epoch for one in self._ledger.trials[trial.config["trial"]].epochs)

    def _end(self, trial: Any, end: TrialEnded) -> None:
        if trial.trial_id not in self._ids:  # it never started: nothing to close
            return
        if self._ledger.trials[end.trial_id].end is None:
            self.tell(end)

    def tell(self, event: Event) -> None:
        """Passes an event on; nothing that a listener does wrong gets out."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - Tune does not catch it, and no listener is worth the sweep
                warnings.warn(f"{type(listener).__name__} lost a {type(event).__name__}: {error}", stacklevel=2)


def last_failure(trial: Any) -> str:
    """What Tune wrote about the last failure of a trial; empty if nothing."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return ""
    return text.rsplit("Failure # ", 1)[-1].strip()


def _last_line(trial: Any) -> str:
    lines = last_failure(trial).splitlines()
    return lines[-1].strip() if lines else "the process of the trial died"
