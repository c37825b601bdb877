"""`infosam sync`: any store gets to the log's state, and no run is left running whatever died."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from mlflow import MlflowClient
from mlflow.entities import Run
from stories import Files, Log, ended, epoch, started, three_trials
from typer.testing import CliRunner

from infosam.errors import UserError
from tune.cli import register
from tune.event_log import EventLog
from tune.events import TrialStarted
from tune.home import Home
from tune.sync import sync_sweep
from tune.tracking import LogFollower, Tracker


def sweep(home: Home, *events: Any) -> Log:
    """A sweep in the home, with its settings."""
    folder = home.sweeps / "polyp-2"
    log = Log(folder, [started(settings="tracking: {uri: null}\n"), *events])
    (folder / "sweep.yaml").write_text("{}")
    return log


def runs(uri: str) -> dict[str, Run]:
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    named = {run.data.tags.get("trial_id", ""): run for run in found}
    assert len(named) == len(found)
    return named


def contents(uri: str) -> dict[str, Any]:
    """All that a store says of a sweep, without its own ids."""
    client = MlflowClient(tracking_uri=uri)
    ids = {run.info.run_id: name for name, run in runs(uri).items()}
    return {
        name: (
            run.info.run_name,
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            run.data.params,
            {key: ids.get(value, value) for key, value in run.data.tags.items()},
            {
                key: sorted((p.step, p.value, p.timestamp) for p in client.get_metric_history(run.info.run_id, key))
                for key in run.data.metrics
            },
            sorted(file.path for file in client.list_artifacts(run.info.run_id)),
            sorted(one.dataset.name for one in run.inputs.dataset_inputs),
        )
        for name, run in runs(uri).items()
    }


def test_an_empty_store_gets_exactly_what_the_first_one_has(home: Home, tmp_path: Path) -> None:
    log = sweep(home, *three_trials()[1:], ended())
    Tracker(home.tracking_uri, log.path, files=Files(), warn=lambda _: None).close()
    other = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    result = sync_sweep(log.path.parent, home, uri=other)
    assert result.states == {"FINISHED": 1, "KILLED": 1, "FAILED": 1}
    assert contents(other) == contents(home.tracking_uri)
    assert (tmp_path / "other" / "artifacts" / "infosam").is_dir()
    before = contents(other)
    sync_sweep(log.path.parent, home, uri=other)
    assert contents(other) == before


def test_what_was_changed_or_lost_in_the_store_is_mended(home: Home) -> None:
    log = sweep(home, *three_trials()[1:], ended())
    sync_sweep(log.path.parent, home)
    before, client = contents(home.tracking_uri), MlflowClient(tracking_uri=home.tracking_uri)
    found = runs(home.tracking_uri)
    client.set_terminated(found["t0000"].info.run_id, "FAILED")
    client.set_tag(found["t0000"].info.run_id, "stop_reason", "nonsense")
    client.delete_run(found["t0001"].info.run_id)
    sync_sweep(log.path.parent, home)
    assert contents(home.tracking_uri) == before


def test_after_the_driver_died_nothing_is_left_running(home: Home) -> None:
    log = sweep(home, *three_trials()[1:10])  # no trial has an end
    follower = LogFollower(home.tracking_uri, log.path, Files())
    follower.catch_up()
    follower.close()
    assert {run.info.status for run in runs(home.tracking_uri).values()} == {"RUNNING"}
    assert sync_sweep(log.path.parent, home).states == {"KILLED": 3}
    found = runs(home.tracking_uri)
    assert {run.info.status for run in found.values()} == {"KILLED"}
    assert {run.data.tags["stop_reason"] for run in found.values()} == {"driver_died"}
    assert {run.info.end_time for run in found.values()} == {1_041_000}
    note = found[""].data.tags["mlflow.note.content"]
    assert "The driver died" in note
    assert "infosam sweep --resume polyp-2" in note
    assert "| t0000 | lora, rank 4, lr 0.001 | 4 |" in note


def test_a_sweep_that_goes_on_after_that_is_open_again_and_ends_well(home: Home) -> None:
    log = sweep(home, *three_trials()[1:10])
    sync_sweep(log.path.parent, home)
    driver = EventLog(log.path)
    driver(started(resumed=True, at=2000.0))
    tracker = Tracker(home.tracking_uri, log.path, files=Files(), warn=lambda _: None)
    driver(TrialStarted(trial_id="t0001", values={}, at=2001.0))
    assert tracker.flush()
    found = runs(home.tracking_uri)
    assert {name: run.info.status for name, run in found.items()} == {
        "": "RUNNING", "t0000": "KILLED", "t0001": "RUNNING", "t0002": "KILLED",
    }  # fmt: skip
    assert "stop_reason" not in found[""].data.tags
    driver(epoch("t0001", 2, 0.5, 2010.0))
    driver(ended(at=2020.0))
    assert tracker.close().unwritten == 0
    driver.close()
    found = runs(home.tracking_uri)
    assert found[""].info.status == "FINISHED"
    assert {found[name].info.status for name in ("t0000", "t0001", "t0002")} == {"KILLED"}
    assert {found[name].data.tags["stop_reason"] for name in ("t0000", "t0001", "t0002")} == {"user"}


def test_a_living_sweep_is_not_closed(home: Home, tmp_path: Path) -> None:
    log = sweep(home, *three_trials()[1:10])
    driver = EventLog(log.path)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    result = sync_sweep(log.path.parent, home, uri=other)
    assert (result.alive, result.states) == (True, {"RUNNING": 3})
    assert {run.info.status for run in runs(other).values()} == {"RUNNING"}
    tracker = Tracker(home.tracking_uri, log.path, files=Files(), warn=lambda _: None)
    assert tracker.flush()
    with pytest.raises(UserError, match="another process writes polyp-2 there"):
        sync_sweep(log.path.parent, home)
    tracker.close()
    driver.close()


def test_a_server_that_is_down_is_named(home: Home, free_port: int) -> None:
    log = sweep(home, *three_trials()[1:])
    with pytest.raises(UserError, match=f"127.0.0.1:{free_port}: cannot be brought to the state of polyp-2"):
        sync_sweep(log.path.parent, home, uri=f"http://127.0.0.1:{free_port}")


def test_the_command_says_what_is_there(home: Home) -> None:
    sweep(home, *three_trials()[1:], ended())
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, ["sync", "polyp-2"])
    assert done.exit_code == 0, done.output
    assert "trials 1 FAILED, 1 FINISHED, 1 KILLED" in done.output


def test_a_sweep_that_never_began_has_nothing_to_bring(home: Home) -> None:
    folder = home.sweeps / "polyp-2"
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text("{}")
    with pytest.raises(UserError, match="ended before the first trial"):
        sync_sweep(folder, home)
