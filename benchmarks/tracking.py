"""What tracking costs, ours against Tune's own MLflow callback, on a real `mlflow server` that is killed three times.

    python benchmarks/tracking.py [--quick]

A driver without Ray calls the true callbacks as Tune does, for 500 trials of 10 epochs, 16 at a time. Ours writes the
event log, and the true tracker follows it into MLflow; after every epoch the driver waits for the tracker, so that no
two epochs share a request, which is the worst case. At a quarter, a half and three quarters of the sweep the server is
killed; the sweep goes on over three epochs without it. At the end runs, parameters, states and every metric point are
compared with the log. The stock callback gets a few trials on a server nobody kills: it would end the sweep.

Requests are those of the MLflow API that were answered; uploads of files and failed attempts do not count. The last
line is one JSON object of figures; --quick runs 40 trials. PostgreSQL if it is installed, else SQLite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from mlflow import MlflowClient
from ray.air.integrations.mlflow import MLflowLoggerCallback
from servers import Missing, MlflowServer, mlflow_server, postgresql

from tune.callback import EventCallback
from tune.event_log import NAME, EventLog, read_events
from tune.events import EpochReported, SweepEnded, SweepStarted
from tune.ledger import Ledger
from tune.mlflow_runs import epoch_metrics
from tune.resources import environment
from tune.tracking import CLIENT_SETTINGS, Tracker
from tune.worker import Report

EPOCHS = 10
SLOTS = 16
OUTAGE_ROUNDS = 3
STOCK_TRIALS = 8
EXPERIMENT = "tracking"
TUNES_OWN = ("timestamp", "pid", "time_this_iter_s", "time_total_s", "time_since_restore", "iterations_since_restore")
"""Numbers that Tune adds to every result, and that its callback logs."""


@dataclass(eq=False)
class Trial:
    """As much of a trial as callbacks look at."""

    trial_id: str
    config: dict[str, Any]
    last_result: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.trial_id


class NoFiles:
    """Trials that only count leave nothing."""

    def bundle(self, trial_id: str) -> Path | None:
        """None."""
        return None

    def images(self, trial_id: str) -> Sequence[Path]:
        """None."""
        return ()


@contextlib.contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """Counts the answered requests of this process to the MLflow API by their path."""
    counts: Counter[str] = Counter()
    send = requests.Session.send

    def counting(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = send(self, request, **options)
        path = (request.path_url or "").partition("?")[0]
        if response.ok and "/mlflow/" in path and "/mlflow-artifacts/" not in path:
            counts[path] += 1
        return response

    requests.Session.send = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        requests.Session.send = send  # type: ignore[method-assign]


def values_of(number: int, epoch: int) -> dict[str, float]:
    """What a training reports after an epoch: eleven numbers."""
    dice = (0.9 - 0.001 * (number % 100)) * (1 - 0.5**epoch)
    scores = {f"val/{prompt}{name}": dice for prompt in ("", "box/", "none/") for name in ("dice", "iou")}
    losses = {f"loss/{name}": 1 - dice for name in ("total", "structure", "compression", "distillation")}
    return {**scores, **losses, "cost/seconds": 1.0 + epoch}


def new_trial(number: int) -> Trial:
    """A trial with five searched values."""
    values = {"optim.lr": 1e-4 * (number + 1), "peft.kind": "lora", "peft.rank": 2 ** (number % 5)}
    values |= {"info.compression": number / 100, "info.distillation": number / 50}
    return Trial(f"{number:05d}", {"trial": f"t{number:04d}", "values": values})


def is_stopped(number: int, epoch: int) -> bool:
    """A tenth of the trials is stopped early, so that states differ; the others take all epochs."""
    return number % 10 == 9 and epoch == 5


class Killable:
    """A server that remembers whether it is down."""

    def __init__(self, server: MlflowServer) -> None:
        self._server = server
        self.uri = server.uri
        self.is_down = False

    def kill(self) -> None:
        """As a power cut."""
        self._server.kill()
        self.is_down = True

    def start_again(self) -> None:
        """Does nothing to one that is up."""
        if self.is_down:
            self._server.start()
            self.is_down = False


@contextlib.contextmanager
def killable(store: str, artifacts: Path) -> Iterator[Killable]:
    """A server over a database."""
    with mlflow_server(store, artifacts) as server:
        yield Killable(server)


class Sweep:
    """Our sweep on a server: the driver's part."""

    def __init__(self, folder: Path, server: Killable, trials: int) -> None:
        self._server = server
        self._trials = trials
        self.log = EventLog(folder / NAME)
        self._ledger = Ledger()
        self._callback = EventCallback(self._ledger, [self.log])
        self.in_callbacks_s = 0.0
        self._round = self._down_since = 0
        rounds = EPOCHS * -(-trials // SLOTS)
        self._kills = [max(1, rounds * part // 4) for part in (1, 2, 3)]

    def run(self) -> None:
        """All trials, to the end of the tracker."""
        started = SweepStarted(
            sweep_id="tracking",
            domain="counting",
            experiment=EXPERIMENT,
            settings="{}",
            params={},
            tags={"seed": "0", "protocol": "benchmark", "commit": "-", "data_digest": "0" * 64},
            data={"name": "counting", "digest": "0" * 64, "source": "/nowhere", "counts": {}},
            zero_shot={"val/dice": 0.5},
            rungs=[5, EPOCHS],
        )
        self._callback.tell(started)
        tracker = Tracker(self._server.uri, self.log.path, files=NoFiles(), warn=print, patience_s=600)
        for first in range(0, self._trials, SLOTS):
            self._wave(range(first, min(first + SLOTS, self._trials)), tracker)
        self._server.start_again()
        self._callback.tell(SweepEnded(state="FINISHED", reason="completed", note="# Done"))
        result = tracker.close()
        self.log.close()
        if result.unwritten:
            raise SystemExit(f"{result.unwritten} records are missing: {result.error}")

    def _wave(self, numbers: Sequence[int], tracker: Tracker) -> None:
        trials = {number: new_trial(number) for number in numbers}
        for trial in trials.values():
            self._timed(self._callback.on_trial_start, trial)
        for epoch in range(1, EPOCHS + 1):
            for number, trial in list(trials.items()):
                stopped = is_stopped(number, epoch)
                report = Report(
                    epoch=epoch,
                    values=values_of(number, epoch),
                    checkpoint=None,
                    is_best=True,
                    completed=epoch == EPOCHS,
                )
                trial.last_result = {"report": report, "done": stopped or report.completed}
                self._timed(self._callback.on_trial_result, trial, trial.last_result)
                if stopped or report.completed:
                    self._timed(self._callback.on_trial_complete, trial)
                    del trials[number]
            self._after_round(tracker)

    def _after_round(self, tracker: Tracker) -> None:
        self._round += 1
        if self._round in self._kills:
            print(f"round {self._round}: the server is killed", flush=True)
            self._server.kill()
            self._down_since = self._round
        elif self._server.is_down and self._round >= self._down_since + OUTAGE_ROUNDS:
            self._server.start_again()
        if not self._server.is_down:
            tracker.flush()

    def _timed(self, hook: Any, trial: Trial, *arguments: Any) -> None:
        start = time.perf_counter()
        hook(0, [], trial, *arguments)
        self.in_callbacks_s += time.perf_counter() - start


def mismatches(uri: str, log: Path) -> list[str]:
    """Where a server differs from a log: runs, names of states, parameters, every metric point with its time."""
    ledger = Ledger.replay(log)
    assert ledger.sweep is not None
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs([experiment.experiment_id], max_results=50_000)
    runs = {run.data.tags.get("trial_id", ""): run for run in found}
    wrong = [f"{len(found)} runs for {len(ledger.trials)} trials"] if len(found) != len(ledger.trials) + 1 else []
    wanted: dict[str, dict[str, list[tuple[int, float, int]]]] = {}
    for event, _ in read_events(log):
        if isinstance(event, EpochReported):
            for metric in epoch_metrics(ledger.sweep, event):
                points = wanted.setdefault(event.trial_id, {}).setdefault(metric.key, [])
                points.append((metric.step, metric.value, metric.timestamp))
    for name, trial in ledger.trials.items():
        run = runs.get(name)
        if run is None:
            wrong.append(f"{name} has no run")
            continue
        if trial.end is None or (run.info.status, run.data.tags["stop_reason"]) != (trial.end.state, trial.end.reason):
            wrong.append(f"{name} is {run.info.status}")
        if run.data.params != {path: str(value) for path, value in trial.values.items()}:
            wrong.append(f"{name} has parameters {run.data.params}")
        if set(run.data.metrics) != set(wanted[name]):
            wrong.append(f"{name} has metrics {sorted(run.data.metrics)}")
        for key, points in wanted[name].items():
            there = [(p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, key)]
            if sorted(there) != sorted(points):
                wrong.append(f"{name} {key}: {len(there)} points, {len(points)} in the log")
    if runs[""].info.status != "FINISHED":
        wrong.append(f"the parent is {runs[''].info.status}")
    return wrong


def stock(uri: str, trials: int) -> tuple[float, float]:
    """Requests and seconds per trial of Tune's own callback."""
    with counted_requests() as counts:
        callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name="stock")
        callback.setup()
        start = time.perf_counter()
        for number in range(trials):
            trial = new_trial(number)
            callback.log_trial_start(trial)
            for epoch in range(1, EPOCHS + 1):
                own = dict.fromkeys(TUNES_OWN, 1.0)
                result = {**values_of(number, epoch), **own, "training_iteration": epoch, "config": trial.config}
                callback.log_trial_result(epoch, trial, result)
            callback.log_trial_end(trial)
        return sum(counts.values()) / trials, (time.perf_counter() - start) / trials


def measure(store: str, folder: Path, trials: int) -> Mapping[str, Any]:
    """All figures on one server."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(killable(store, folder / "artifacts"))
        sweep = Sweep(folder, server, trials)
        start = time.perf_counter()
        with counted_requests() as counts:
            sweep.run()
        seconds = time.perf_counter() - start
        print(f"ours: {dict(counts)}", flush=True)
        wrong = mismatches(server.uri, sweep.log.path)
        for line in wrong[:20]:
            print(line)
        stock_requests, stock_s = stock(server.uri, min(STOCK_TRIALS, trials // 10))
    ours, ours_s = sum(counts.values()) / trials, sweep.in_callbacks_s / trials
    return {
        "trials": trials,
        "epochs": EPOCHS,
        "store": store.partition(":")[0].partition("+")[0],
        "requests_per_trial": ours,
        "requests_per_trial_stock": stock_requests,
        "ratio_requests": ours / stock_requests,
        "seconds_per_trial": ours_s,
        "seconds_per_trial_stock": stock_s,
        "ratio_seconds": ours_s / stock_s,
        "seconds_until_written_per_trial": seconds / trials,
        "mismatches": len(wrong),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="40 trials instead of 500")
    trials = 40 if parser.parse_args().quick else 500
    with tempfile.TemporaryDirectory() as name, environment(CLIENT_SETTINGS), contextlib.ExitStack() as stack:
        try:
            store = stack.enter_context(postgresql()).create("tracking")
        except Missing as why:
            print(why)
            store = f"sqlite:///{Path(name) / 'mlflow.db'}"
        figures = measure(store, Path(name), trials)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
