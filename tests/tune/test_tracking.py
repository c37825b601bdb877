"""A sweep in a real MLflow store: what is there afterwards, and what a missing server does to a sweep."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tune.events import EpochReported, Event, TrialEnded, TrialRetried, TrialStarted
from tune.home import Home
from tune.mlflow_writer import SweepFacts, SweepSummary
from tune.tracking import Tracker, TrackingResult


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "card.json").write_text("{}")
    return folder


def facts(home: Home, *, artifacts: bool = True) -> SweepFacts:
    return SweepFacts(
        sweep_id="polyp-2",
        domain="polyp",
        experiment="infosam",
        artifacts=home.artifacts if artifacts else None,
        settings="data: here\n",
        params={"train.epochs": 4},
        tags={"data_digest": "d1", "seed": "7", "protocol": "strict"},
    )


def story() -> list[Event]:
    """Three trials: one completes after a retry, one is stopped early, one breaks before its first epoch."""
    events: list[Event] = [
        TrialStarted(trial_id="t0000", values={"peft.kind": "lora", "peft.rank": 4, "optim.lr": 1e-3}),
        TrialStarted(trial_id="t0001", values={"peft.kind": "adapter", "peft.width": 8, "optim.lr": 1e-2}),
        TrialStarted(trial_id="t0002", values={"optim.lr": 1e-1}),
    ]
    for epoch, dice in enumerate([0.3, 0.8, 0.7], start=1):
        values = {"val/dice": dice, "loss/total": 1 - dice}
        events.append(EpochReported(trial_id="t0000", epoch=epoch, values=values, checkpoint=None, is_best=True))
    events += [
        TrialRetried(trial_id="t0000", error="node lost"),
        EpochReported(trial_id="t0001", epoch=1, values={"val/dice": 0.2}, checkpoint=None, is_best=True),
        TrialEnded(trial_id="t0002", state="FAILED", reason="error", error="out of memory", trace="line 1\nline 2"),
        TrialEnded(trial_id="t0001", state="KILLED", reason="early_stopped"),
        TrialEnded(trial_id="t0000", state="FINISHED", reason="completed"),
    ]
    return events


def tell(
    uri: str, home: Home, events: list[Event], bundle: Path | None = None, *, artifacts: bool = True
) -> TrackingResult:
    tracker = Tracker(
        uri, facts(home, artifacts=artifacts), bundle_of=lambda _: bundle, warn=lambda _: None, patience_s=0.5
    )
    for event in events:
        tracker(event)
    return tracker.close(
        SweepSummary(state="FINISHED", note="# Done", tags={"best_trial": "t0000"}, metrics={"m": 1.0})
    )


def runs(uri: str) -> dict[str, Run]:
    """All runs: the parent under "", children under their trial."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("infosam")
    assert experiment is not None
    return {run.data.tags.get("trial_id", ""): run for run in client.search_runs([experiment.experiment_id])}


def test_a_sweep_is_one_parent_with_a_child_per_trial(home: Home, bundle: Path) -> None:
    result = tell(home.tracking_uri, home, story(), bundle)
    assert result == TrackingResult(unwritten=0, error=None)
    found = runs(home.tracking_uri)
    assert set(found) == {"", "t0000", "t0001", "t0002"}
    parent = found[""]
    assert {name: run.info.status for name, run in found.items()} == {
        "": "FINISHED",
        "t0000": "FINISHED",
        "t0001": "KILLED",
        "t0002": "FAILED",
    }
    for name, reason in {"t0000": "completed", "t0001": "early_stopped", "t0002": "error"}.items():
        tags = found[name].data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["stop_reason"] == reason
        expected = {"sweep_id": "polyp-2", "trial_id": name, "data_digest": "d1", "seed": "7", "protocol": "strict"}
        assert expected.items() <= tags.items()
    assert parent.data.tags["mlflow.note.content"] == "# Done"
    assert parent.data.params == {"train.epochs": "4"}
    assert parent.data.metrics == {"m": 1.0}
    assert found["t0002"].data.tags["error"] == "out of memory"
    assert found["t0000"].data.tags["retried_after"] == "node lost"


def test_children_hold_searched_values_epochs_and_the_bundle(home: Home, bundle: Path) -> None:
    tell(home.tracking_uri, home, story(), bundle)
    client, found = MlflowClient(tracking_uri=home.tracking_uri), runs(home.tracking_uri)
    trial = found["t0000"]
    assert trial.data.params == {"peft.kind": "lora", "peft.rank": "4", "optim.lr": "0.001"}
    history = client.get_metric_history(trial.info.run_id, "val/dice")
    assert [(point.step, point.value) for point in history] == [(1, 0.3), (2, 0.8), (3, 0.7)]
    assert set(trial.data.metrics) == {"val/dice", "loss/total"}
    assert trial.info.run_name == "polyp-t0000-lora4-d0.800"
    assert [file.path for file in client.list_artifacts(trial.info.run_id, "bundle")] == ["bundle/card.json"]
    assert [file.path for file in client.list_artifacts(found[""].info.run_id)] == ["sweep.yaml"]
    assert (
        (home.artifacts / "infosam" / found["t0002"].info.run_id / "artifacts" / "error.txt").read_text().endswith("2")
    )


def test_times_are_those_of_the_events(home: Home) -> None:
    events: list[Event] = [
        TrialStarted(trial_id="t0000", values={}, at=1000.0),
        EpochReported(trial_id="t0000", epoch=1, values={"val/dice": 0.1}, checkpoint=None, is_best=True, at=1001.5),
        TrialEnded(trial_id="t0000", state="FINISHED", reason="completed", at=1002.0),
    ]
    tell(home.tracking_uri, home, events)
    client, run = MlflowClient(tracking_uri=home.tracking_uri), runs(home.tracking_uri)["t0000"]
    assert client.get_metric_history(run.info.run_id, "val/dice")[0].timestamp == 1_001_500
    assert run.info.end_time == 1_002_000


def test_two_sweeps_share_an_experiment_and_nothing_else(home: Home) -> None:
    tell(home.tracking_uri, home, story())
    tell(home.tracking_uri, home, story()[:1])
    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = client.get_experiment_by_name("infosam")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert len(found) == 4 + 2
    assert all(run.info.status != "RUNNING" for run in found)


def test_an_open_trial_is_closed_with_the_sweep(home: Home) -> None:
    tell(home.tracking_uri, home, story()[:1])
    assert runs(home.tracking_uri)["t0000"].info.status == "KILLED"


def test_a_bundle_that_cannot_be_made_does_not_keep_the_run_open(home: Home) -> None:
    def fail(trial_id: str) -> Path:
        raise OSError("disk full")

    tracker = Tracker(home.tracking_uri, facts(home), bundle_of=fail, warn=lambda _: None)
    for event in story():
        tracker(event)
    assert tracker.close(SweepSummary(state="FINISHED", note="")).unwritten == 0
    assert runs(home.tracking_uri)["t0000"].info.status == "FINISHED"
    assert runs(home.tracking_uri)["t0000"].data.tags["bundle_error"] == "disk full"


def test_a_record_the_server_refuses_does_not_hold_up_the_rest(home: Home) -> None:
    bad = EpochReported(trial_id="t0000", epoch=1, values={"bad*name?": 1.0}, checkpoint=None, is_best=True)
    result = tell(home.tracking_uri, home, [story()[0], bad, *story()[1:]])
    assert result.unwritten == 1
    assert "bad*name?" in (result.error or "")
    assert runs(home.tracking_uri)["t0000"].info.status == "FINISHED"


def test_a_missing_server_costs_records_and_nothing_else(home: Home, free_port: int) -> None:
    warnings: list[str] = []
    uri = f"http://127.0.0.1:{free_port}"
    tracker = Tracker(uri, facts(home), bundle_of=lambda _: None, warn=warnings.append, patience_s=0.5)
    for event in story():
        tracker(event)
    result = tracker.close(SweepSummary(state="FINISHED", note=""))
    assert result.unwritten == len(story()) + 1
    assert result.error
    assert len(warnings) == 1
    assert uri in warnings[0]


@pytest.mark.slow
def test_a_server_that_comes_late_gets_everything_once(
    home: Home, bundle: Path, free_port: int, serve: Callable[[Home, int], AbstractContextManager[str]]
) -> None:
    home.folder.mkdir(parents=True)
    home.database.touch()
    warnings: list[str] = []
    tracker = Tracker(
        f"http://127.0.0.1:{free_port}",
        facts(home, artifacts=False),
        bundle_of=lambda _: bundle,
        warn=warnings.append,
        patience_s=90.0,
    )
    for event in story():
        tracker(event)
    while not warnings:
        time.sleep(0.05)
    with serve(home, free_port) as uri:
        assert tracker.close(SweepSummary(state="FINISHED", note="late")).unwritten == 0
        found = runs(uri)
        assert set(found) == {"", "t0000", "t0001", "t0002"}
        assert all(run.info.status != "RUNNING" for run in found.values())
        files = MlflowClient(tracking_uri=uri).list_artifacts(found["t0000"].info.run_id, "bundle")
        assert [file.path for file in files] == ["bundle/card.json"]
    assert warnings[-1] == "MLflow takes records again"


@pytest.mark.slow
def test_the_browser_shows_files_of_an_embedded_sweep(
    home: Home, bundle: Path, free_port: int, serve: Callable[[Home, int], AbstractContextManager[str]]
) -> None:
    tell(home.tracking_uri, home, story(), bundle)
    run_id = runs(home.tracking_uri)["t0000"].info.run_id
    with serve(home, free_port) as uri:
        with urlopen(f"{uri}/get-artifact?run_uuid={run_id}&path=bundle/card.json", timeout=30) as answer:
            assert answer.read() == b"{}"
