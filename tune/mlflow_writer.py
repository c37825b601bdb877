"""How a sweep looks in MLflow: one parent run, one child run per trial. Plain calls, each may fail; `tracking` retries.

Only `MlflowClient` with explicit run ids: no fluent state, one `log_batch` per epoch. A run that may exist already,
because a call failed after the server had done its work, is found again by its tags instead of being made twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune.events import OBJECTIVE, EpochReported, Event, State, TrialEnded, TrialRetried, TrialStarted
from tune.space import Point

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARAM_LIMIT = 6000
TAG_LIMIT = 5000
BATCH_PARAMS = 100
RUNNING_NOTE = "The sweep is running; its leaderboard appears here at the end."


@dataclass(frozen=True, kw_only=True)
class SweepFacts:
    """What is known of a sweep before it starts."""

    sweep_id: str
    domain: str
    experiment: str
    artifacts: Path | None  # where runs of a new experiment keep files; None: where the server says
    settings: str  # the sweep as YAML
    params: Mapping[str, Any]  # fixed settings by dotted path
    tags: Mapping[str, str]  # on parent and children: data_digest, seed, protocol


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """What the parent run says at the end."""

    state: State
    note: str  # Markdown
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


class MlflowWriter:
    """Writes one sweep. Not safe for several threads.

    Args:
        bundle_of: the folder of a trial's best bundle, None if it has none; called once at its end.
    """

    def __init__(self, client: MlflowClient, facts: SweepFacts, bundle_of: Callable[[str], Path | None]) -> None:
        self._client = client
        self._facts = facts
        self._bundle_of = bundle_of
        self._doubtful: set[str] = set()  # keys of runs whose creation failed half-way, perhaps
        self._open: dict[str, State] = {}
        self._best: dict[str, float] = {}
        self._names: dict[str, str] = {}
        self._experiment: str | None = None
        self.started = False
        self.parent: str | None = None
        self.children: dict[str, str] = {}

    def start(self) -> None:
        """Makes experiment and parent run; may be called again after it failed."""
        facts = self._facts
        self._experiment = self._experiment or self._find_experiment()
        if self.parent is None:
            tags = {**facts.tags, "domain": facts.domain, "mlflow.note.content": RUNNING_NOTE, "role": "sweep"}
            self.parent = self._create("", facts.sweep_id, tags)
        self._log_params(self.parent, facts.params)
        self._client.log_text(self.parent, facts.settings, "sweep.yaml")
        self.started = True

    def write(self, event: Event) -> None:
        """Writes one event; may be called again with it after it failed."""
        if isinstance(event, TrialStarted):
            self._start_trial(event)
        elif isinstance(event, EpochReported):
            self._log_epoch(event)
        elif isinstance(event, TrialRetried):
            self._client.set_tag(self.children[event.trial_id], "retried_after", event.error[:TAG_LIMIT])
        elif isinstance(event, TrialEnded):
            self._end_trial(event)

    def finish(self, summary: SweepSummary) -> None:
        """Closes the parent, and any child that is still open as KILLED."""
        assert self.parent is not None
        for run_id in list(self._open):
            if run_id != self.parent:
                self._terminate(run_id, "KILLED")
        from mlflow.entities import Metric, RunTag

        tags = {**summary.tags, "mlflow.note.content": summary.note}
        self._client.log_batch(
            self.parent,
            metrics=[Metric(name, value, _now_ms(), 0) for name, value in summary.metrics.items()],
            tags=[RunTag(name, value[:TAG_LIMIT]) for name, value in tags.items()],
        )
        for file in summary.files:
            self._client.log_artifact(self.parent, str(file))
        self._terminate(self.parent, summary.state)

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self._facts.experiment
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        where = self._facts.artifacts
        try:
            location = (where / name).absolute().as_uri() if where else None
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException:  # made by another sweep meanwhile
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _create(self, trial_id: str, run_name: str, tags: Mapping[str, str]) -> str:
        """A new run, or the one an attempt that seemed to fail has made."""
        assert self._experiment is not None
        marks = {"sweep_id": self._facts.sweep_id, **({"trial_id": trial_id} if trial_id else {})}
        if trial_id in self._doubtful:
            wanted = " and ".join(f"tags.{name} = '{value}'" for name, value in marks.items())
            for run in self._client.search_runs([self._experiment], wanted):
                if trial_id or "trial_id" not in run.data.tags:
                    self._open[run.info.run_id] = "KILLED"
                    return str(run.info.run_id)
        self._doubtful.add(trial_id)
        run = self._client.create_run(self._experiment, run_name=run_name, tags={**marks, **tags})
        self._doubtful.discard(trial_id)
        self._open[run.info.run_id] = "KILLED"
        return str(run.info.run_id)

    def _start_trial(self, event: TrialStarted) -> None:
        facts = self._facts
        name = f"{facts.domain}-{event.trial_id}{_short(event.values)}"
        if event.trial_id not in self.children:
            assert self.parent is not None
            tags = {**facts.tags, "domain": facts.domain, "role": "trial", "mlflow.parentRunId": self.parent}
            if "peft.kind" in event.values:
                tags["method"] = str(event.values["peft.kind"])
            self.children[event.trial_id] = self._create(event.trial_id, name, tags)
        self._names[event.trial_id] = name
        self._log_params(self.children[event.trial_id], event.values)

    def _log_epoch(self, event: EpochReported) -> None:
        from mlflow.entities import Metric

        at = int(event.at * 1000)
        self._client.log_batch(
            self.children[event.trial_id],
            metrics=[Metric(name, value, at, event.epoch) for name, value in event.values.items()],
        )
        self._best[event.trial_id] = max(self._best.get(event.trial_id, 0.0), event.values.get(OBJECTIVE, 0.0))

    def _end_trial(self, event: TrialEnded) -> None:
        from mlflow.entities import RunTag

        run_id = self.children[event.trial_id]
        tags = {"stop_reason": event.reason, **({"error": event.error} if event.error else {})}
        if event.trace:
            self._client.log_text(run_id, event.trace, "error.txt")
        try:
            bundle = self._bundle_of(event.trial_id)
        except Exception as error:  # noqa: BLE001 - a bundle that cannot be made must not keep the run open
            bundle, tags["bundle_error"] = None, str(error)
        if bundle is not None:
            self._client.log_artifacts(run_id, str(bundle), "bundle")
        self._client.log_batch(run_id, tags=[RunTag(name, value[:TAG_LIMIT]) for name, value in tags.items()])
        if event.trial_id in self._best:
            self._client.update_run(run_id, name=f"{self._names[event.trial_id]}-d{self._best[event.trial_id]:.3f}")
        self._terminate(run_id, event.state, at=event.at)

    def _log_params(self, run_id: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(path, str(value)[:PARAM_LIMIT]) for path, value in values.items()]
        for start in range(0, len(params), BATCH_PARAMS):
            self._client.log_batch(run_id, params=params[start : start + BATCH_PARAMS])

    def _terminate(self, run_id: str, state: State, *, at: float | None = None) -> None:
        self._client.set_terminated(run_id, state, end_time=int(at * 1000) if at else None)
        self._open.pop(run_id, None)


def _short(values: Point) -> str:
    """`-lora8` for a trial of that kind and width."""
    kind = values.get("peft.kind")
    width = values.get("peft.rank", values.get("peft.width", ""))
    return f"-{kind}{width}" if kind else ""


def _now_ms() -> int:
    return int(time.time() * 1000)
