"""Single runs in an MLflow store, each brought to a wanted state with as few requests as that takes.

Only `MlflowClient` with explicit run ids, no fluent state. What the store has of a run is remembered, and looked up
again when a request may or may not have come through. Every call may fail; calling again sends only what lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune.events import OBJECTIVE, State
from tune.mlflow_runs import NAME_TAG, STOP_TAGS, milliseconds, params, run_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric

BATCH_METRICS = 800  # MLflow takes 1000 items at once, 100 of them parameters and 100 tags
BATCH_PARAMS = 100
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED")
"""Answers to a record that the server will never take; again would be in vain, and hold up the rest."""
TRY_AGAIN = (408, 425, 429)
"""Client errors in HTTP that are none."""

Points = Mapping[tuple[int, int], "Sequence[Metric]"]
"""Metrics by step and time in ms; those of one key are written together."""


@dataclass
class StoredRun:
    """What the store has of a run."""

    run_id: str
    doubtful: bool = True  # the rest is to be looked up first
    status: str = "RUNNING"
    end_ms: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    points: set[tuple[int, int]] = field(default_factory=set)
    described: bool = False  # parameters and dataset inputs are there

    @contextlib.contextmanager
    def in_doubt(self) -> Iterator[None]:
        """Until everything inside has worked, nothing is sure."""
        self.doubtful = True
        yield
        self.doubtful = False


class RunStore:
    """The runs of one experiment.

    Args:
        artifacts: where a new experiment keeps files; None: where the server says."""

    def __init__(self, client: MlflowClient, experiment: str, artifacts: Path | None) -> None:
        self._client = client
        self._name = experiment
        self._artifacts = artifacts
        self._experiment: str | None = None
        self.refusals: list[str] = []
        self.calls = 0  # requests that worked: a sign of life

    def find(self, marks: Mapping[str, str]) -> dict[str, str]:
        """Ids of all runs with these tags, by their tag `trial_id`, "" without one."""
        wanted = " and ".join(f"tags.{name} = '{value}'" for name, value in marks.items())
        found: dict[str, str] = {}
        token: str | None = None
        while True:
            page = self._call(self._client.search_runs, [self._experiment_id()], wanted, page_token=token)
            for run in page:
                found.setdefault(run.data.tags.get("trial_id", ""), run.info.run_id)
            token = page.token
            if not token:
                return found

    def create(self, tags: Mapping[str, str], *, at: float) -> StoredRun:
        """A new run, running since `at`."""
        run = self._call(
            self._client.create_run,
            self._experiment_id(),
            start_time=milliseconds(at),
            tags=dict(tags),
            run_name=tags[NAME_TAG],
        )
        return StoredRun(run.info.run_id, doubtful=False, tags=dict(tags))

    def look(self, run: StoredRun, points: Points) -> bool:
        """Learns what the store has of a run, as far as the wanted points go; False if it is gone."""
        from mlflow.exceptions import MlflowException

        try:
            found = self._call(self._client.get_run, run.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        run.tags, run.status, run.end_ms = dict(found.data.tags), found.info.status, found.info.end_time
        run.described = False
        run.points = set()
        # One metric stands for its batch, which a database takes as a whole or not at all.
        for name in {_marker(batch) for batch in points.values() if batch}:
            history = self._call(self._client.get_metric_history, run.run_id, name)
            run.points |= {(point.step, point.timestamp) for point in history}
        return bool(found.info.lifecycle_stage == "active")

    def describe(self, run: StoredRun, values: Mapping[str, Any], inputs: Sequence[DatasetInput]) -> None:
        """Parameters and dataset inputs, which never change."""
        if run.described:
            return
        everything = params(values)
        for start in range(0, len(everything), BATCH_PARAMS):
            self._log(run, params=everything[start : start + BATCH_PARAMS])
        with self._refusable():
            self._call(self._client.log_inputs, run.run_id, inputs)
        run.described = True

    def send(self, run: StoredRun, points: Points, tags: Mapping[str, str]) -> None:
        """Metrics and tags that lack, in one request if they fit; a run that goes on loses the marks of its end."""
        for name in STOP_TAGS:
            if name in run.tags and name not in tags:
                self._call(self._client.delete_tag, run.run_id, name)
                del run.tags[name]
        changed = {name: value for name, value in tags.items() if run.tags.get(name) != value}
        lacking = [key for key, batch in points.items() if batch and key not in run.points]
        while lacking or changed:
            batch: list[Metric] = []
            count = 0
            for key in lacking:
                if batch and len(batch) + len(points[key]) > BATCH_METRICS:
                    break
                batch += points[key]
                count += 1
            self._log(run, metrics=batch, tags=run_tags(changed))
            run.points |= set(lacking[:count])
            run.tags |= changed
            lacking, changed = lacking[count:], {}

    def set_status(self, run: StoredRun, state: State | None, at: float | None) -> None:
        """Ends a run, or opens it again for `None`."""
        status, end_ms = state or "RUNNING", milliseconds(at) if at else None
        if run.status == status and (state is None or run.end_ms == end_ms):
            return
        if state is None:
            self._call(self._client.update_run, run.run_id, status=status)
        else:
            self._call(self._client.set_terminated, run.run_id, status, end_ms)
        run.status, run.end_ms = status, end_ms

    def upload(self, method: str, run: StoredRun, *arguments: Any, **options: Any) -> None:
        """A file by one of the client's methods. A file that is gone counts as refused."""
        with self._refusable():
            self._call(getattr(self._client, method), run.run_id, *arguments, **options)

    def artifacts(self, run: StoredRun, folder: str) -> list[str]:
        """Paths of a run's artifacts in a folder."""
        return [file.path for file in self._call(self._client.list_artifacts, run.run_id, folder)]

    def _experiment_id(self) -> str:
        if self._experiment is None:
            self._experiment = self._call(ensure_experiment, self._client, self._name, self._artifacts)
        return self._experiment

    def _log(self, run: StoredRun, **items: Sequence[Any]) -> None:
        """One request; if it is refused, every item alone, so that only what is bad is lost."""
        from mlflow.exceptions import MlflowException

        try:
            self._call(self._client.log_batch, run.run_id, **items)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            if sum(map(len, items.values())) == 1:
                self.refusals.append(str(error))
                return
            for kind, some in items.items():
                for item in some:
                    self._log(run, **{kind: [item]})

    @contextlib.contextmanager
    def _refusable(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from requests import HTTPError

        try:
            yield
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            self.refusals.append(str(error))
        except HTTPError as error:
            status = error.response.status_code if error.response is not None else 500
            if status >= 500 or status in TRY_AGAIN:
                raise
            self.refusals.append(str(error))
        except FileNotFoundError as error:
            self.refusals.append(str(error))

    def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        self.calls += 1
        return result


def _marker(batch: Sequence[Metric]) -> str:
    names = [metric.key for metric in batch]
    return OBJECTIVE if OBJECTIVE in names else str(min(names))


def ensure_experiment(client: MlflowClient, name: str, artifacts: Path | None) -> str:
    """Id of the experiment of that name, made if there is none; its files lie below `artifacts`, or where the server
    says. Raises MlflowException."""
    from mlflow.exceptions import MlflowException

    found: Any = client.get_experiment_by_name(name)
    if found is None:
        location = (artifacts / name).absolute().as_uri() if artifacts else None
        try:
            client.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # else another process was faster
                raise
        found = client.get_experiment_by_name(name)
    return str(found.experiment_id)
