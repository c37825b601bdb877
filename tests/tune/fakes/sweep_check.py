"""What must hold for a sweep after any fault: every trial ended once, the same everywhere, no row lost or doubled."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import optuna
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tune.event_log import NAME, is_written, read_events
from tune.events import EpochReported, TrialEnded, TrialEvent, TrialStarted
from tune.ledger import Ledger, TrialRecord
from tune.trial_ids import role_of

RELEASE_S = 30.0
IN_OPTUNA = {"FINISHED": {"COMPLETE"}, "KILLED": {"PRUNED"}, "FAILED": {"FAIL"}}
IN_TUNE = {"FINISHED": {"TERMINATED"}, "KILLED": {"TERMINATED"}, "FAILED": {"TERMINATED", "ERROR"}}
"""A trial that failed by itself is no error of Tune's, which only lost processes are."""

Rows = dict[tuple[float, int], float]
"""(learning rate, epoch) -> validation Dice."""


def check_sweep(folder: Path, uri: str, *, trials: int) -> Ledger:
    """Compares event log, Tune, Optuna and MLflow; the state of the sweep."""
    ledger = Ledger.replay(folder / NAME)
    assert len(ledger.trials) == trials, sorted(ledger.trials)
    assert ledger.end is not None
    assert not is_written(folder / NAME)
    _check_log(folder / NAME)
    states = {name: trial.end.state for name, trial in ledger.trials.items() if trial.end}
    assert len(states) == trials
    told = optuna_states(folder)
    tuned = tune_states(folder)
    searched = sorted(name for name in states if role_of(name) == "trial")
    assert searched == [f"t{number:04d}" for number in range(len(searched))]
    assert sorted(told) == searched
    for name, state in states.items():
        if name in told:
            assert told[name] in IN_OPTUNA[state], (name, state, told)
        if name in tuned:  # what an earlier driver had finished is only in the log
            assert tuned[name] in IN_TUNE[state], (name, state, tuned)
    _check_mlflow(folder.name, uri, ledger)
    return ledger


def lasting_rows(rates: Sequence[float], epochs: int = 4) -> Rows:
    """What an undisturbed sweep with `lasting_training` reports, by that training's formula."""
    found: Rows = {}
    for rate in rates:
        peak, dice = 0.9 - 0.1 * abs(math.log10(rate) + 3), 0.0
        for epoch in range(1, epochs + 1):
            dice += (peak - dice) / 2
            found[rate, epoch] = dice
    return found


def rows(ledger: Ledger) -> Rows:
    """What was reported; no two trials may have the same learning rate."""
    assert len({trial.values["optim.lr"] for trial in ledger.trials.values()}) == len(ledger.trials)
    return {
        (trial.values["optim.lr"], epoch.epoch): epoch.values["val/dice"]
        for trial in ledger.trials.values()
        for epoch in trial.epochs
    }


def reported(trial: TrialRecord) -> list[tuple[int, dict[str, float]]]:
    """Epochs and values of a trial, without how long they took."""
    return [
        (epoch.epoch, {name: value for name, value in epoch.values.items() if not name.startswith("cost/")})
        for epoch in trial.epochs
    ]


def check_resources(cpus: float) -> None:
    """All processors are free again, and no placement group is left."""
    import ray
    from ray.util import placement_group_table

    deadline = time.monotonic() + RELEASE_S
    while True:
        free = ray.available_resources().get("CPU", 0)
        groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        if free == cpus and not groups:
            return
        assert time.monotonic() < deadline, f"{free} of {cpus} CPUs are free, placement groups: {groups}"
        time.sleep(0.2)


def optuna_states(folder: Path) -> dict[str, str]:
    """Last state of each trial in the study; an entry that was put back into the queue is told FAIL before."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.load_study(study_name=folder.name, storage=storage)
    found = {one.user_attrs["trial_id"]: one.state.name for one in study.trials if "trial_id" in one.user_attrs}
    assert "RUNNING" not in [one.state.name for one in study.trials]
    return found


def tune_states(folder: Path) -> dict[str, str]:
    """Last state of each trial in the newest runs of Tune; those of drivers that died are left as they were."""
    found = {}
    for kind in ("tune", "finals"):
        runs = sorted(folder.glob(f"{kind}*"), key=lambda path: (len(path.name), path.name))
        for newest in [sorted(run.glob("experiment_state-*.json"))[-1] for run in runs[-1:]]:
            trials = [json.loads(text) for text, _ in json.loads(newest.read_text())["trial_data"]]
            found |= {trial["config"]["trial"]: trial["status"] for trial in trials}
    return found


def _check_log(path: Path) -> None:
    seen: Counter[tuple[str, int]] = Counter()
    running: set[str] = set()
    for event, _ in read_events(path):
        if isinstance(event, TrialStarted):
            running.add(event.trial_id)
        elif isinstance(event, TrialEvent):
            assert event.trial_id in running, event
        if isinstance(event, EpochReported):
            seen[event.trial_id, event.epoch] += 1
        elif isinstance(event, TrialEnded):
            running.discard(event.trial_id)
    assert not running
    assert set(seen.values()) <= {1}
    for trial_id in {name for name, _ in seen}:
        epochs = sorted(epoch for name, epoch in seen if name == trial_id)
        assert epochs == list(range(1, len(epochs) + 1)), (trial_id, epochs)


def _check_mlflow(sweep_id: str, uri: str, ledger: Ledger) -> None:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("infosam")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], f"tags.sweep_id = '{sweep_id}'"))
    names = Counter(run.data.tags.get("trial_id", "") for run in runs)
    assert names == Counter(["", *ledger.trials])
    for run in runs:
        name = run.data.tags.get("trial_id", "")
        end = ledger.trials[name].end if name else ledger.end
        assert end is not None
        assert run.info.status == end.state, (name, run.info.status, end)
        if name:
            _check_run(client, run, ledger.trials[name])


def _check_run(client: MlflowClient, run: Run, trial: TrialRecord) -> None:
    assert trial.end is not None
    assert run.data.tags["stop_reason"] == trial.end.reason
    if trial.epochs:
        points = client.get_metric_history(run.info.run_id, "val/dice")
        found = sorted((point.step, point.value) for point in points)
        assert found == sorted((epoch.epoch, epoch.values["val/dice"]) for epoch in trial.epochs)
