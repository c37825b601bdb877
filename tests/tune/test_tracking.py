"""A sweep's log in a real MLflow store: what is there afterwards, and what a missing or dying server does."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from stories import Files, Log, ended, epoch, started, three_trials

from infosam.errors import UserError
from tune.events import EpochReported, TrialEnded, TrialStarted
from tune.home import Home
from tune.position import Position, without_password
from tune.tracking import LogFollower, Tracker, TrackingResult


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "card.json").write_text("{}")
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Three trials, to the end of the sweep."""
    return Log(tmp_path / "polyp-2", [*three_trials(), ended()])


def track(uri: str, log: Log, files: Files | None = None) -> TrackingResult:
    return Tracker(uri, log.path, files=files or Files(), warn=lambda _: None, patience_s=0.5).close()


def follow(uri: str, log: Log, files: Any = None) -> LogFollower:
    """One round over the log, as of a process that is gone afterwards."""
    follower = LogFollower(uri, log.path, files or Files())
    try:
        follower.catch_up()
    finally:
        follower.close()
    return follower


def runs(uri: str) -> dict[str, Run]:
    """All runs: the parent under "", children under their trial."""
    found = all_runs(uri)
    named = {run.data.tags.get("trial_id", ""): run for run in found}
    assert len(named) == len(found), "a trial has two runs"
    return named


def all_runs(uri: str) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))


def history(uri: str, run: Run, name: str = "val/dice") -> list[tuple[int, float, int]]:
    points = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value, point.timestamp) for point in points)


# ------------------------------------------------------------------------------------------ what a person sees


def test_a_sweep_is_one_parent_with_a_child_per_trial(home: Home, log: Log, bundle: Path) -> None:
    assert track(home.tracking_uri, log, Files(bundle)) == TrackingResult(unwritten=0, error=None)
    found = runs(home.tracking_uri)
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
        assert (expected | {"domain": "polyp", "commit": "abc", "role": "trial"}).items() <= tags.items()
    assert parent.data.tags["mlflow.note.content"] == "# Done"
    assert parent.data.tags["best_trial"] == "t0000"
    assert parent.data.params == {"train.epochs": "4"}
    assert parent.data.metrics == {"m": 1.0}
    assert found["t0002"].data.tags["error"] == "out of memory"
    assert found["t0000"].data.tags["retries"] == "1"
    assert found["t0000"].data.tags["retried_after"] == "node lost"


def test_children_have_readable_names_searched_values_and_all_epochs(home: Home, log: Log, bundle: Path) -> None:
    track(home.tracking_uri, log, Files(bundle))
    client, found = MlflowClient(tracking_uri=home.tracking_uri), runs(home.tracking_uri)
    assert {run.info.run_name for run in found.values()} == {
        "polyp-2", "polyp-t0000-lora4-d0.800", "polyp-t0001-adapter-r0.25-d0.200", "polyp-t0002",
    }  # fmt: skip
    trial = found["t0000"]
    assert trial.data.params == {"peft.kind": "lora", "peft.rank": "4", "optim.lr": "0.001"}
    assert set(trial.data.metrics) == {"val/dice", "val/best_dice", "loss/total", "delta/dice_vs_zero_shot"}
    assert (trial.data.metrics["val/dice"], trial.data.metrics["val/best_dice"]) == (0.75, 0.8)
    assert history(home.tracking_uri, trial) == [
        (1, 0.3, 1_010_500), (2, 0.8, 1_020_500), (3, 0.7, 1_030_500), (4, 0.75, 1_040_500),
    ]  # fmt: skip
    assert trial.data.metrics["delta/dice_vs_zero_shot"] == 0.5
    assert (trial.info.start_time, trial.info.end_time) == (1_001_000, 1_052_000)
    assert [found[name].data.tags["rung"] for name in ("t0000", "t0001", "t0002")] == ["4", "0", "0"]
    assert [found[name].data.tags["method"] for name in ("t0000", "t0001", "t0002")] == ["lora", "adapter", "unknown"]
    assert [file.path for file in client.list_artifacts(trial.info.run_id, "bundle")] == ["bundle/card.json"]
    trace = home.artifacts / "infosam" / found["t0002"].info.run_id / "artifacts" / "error.txt"
    assert trace.read_text() == "line 1\nline 2"


def test_runs_name_the_data_they_saw(home: Home, log: Log) -> None:
    track(home.tracking_uri, log)
    for name, run in runs(home.tracking_uri).items():
        inputs = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs}
        assert set(inputs) == ({"train", "val"} if name else {"train", "val", "test"})
        assert {dataset.digest for dataset in inputs.values()} == {("d1" * 32)[:36]}
        assert inputs["val"].name == "polyp/val"


def test_the_parent_holds_the_settings_and_the_results(home: Home, log: Log) -> None:
    (log.path.parent / "overlay.png").write_bytes(b"a picture")
    log.write(started(resumed=True), ended(files=["overlay.png"], at=1200.0))
    track(home.tracking_uri, log)
    client, parent = MlflowClient(tracking_uri=home.tracking_uri), runs(home.tracking_uri)[""]
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"sweep.yaml", "results.parquet", "overlay.png"}
    rows = pq.read_table(log.path.parent / "results.parquet").to_pylist()
    assert [(row["trial"], row["epoch"], row["val/dice"]) for row in rows] == [
        ("t0000", 1, 0.3), ("t0000", 2, 0.8), ("t0000", 3, 0.7), ("t0000", 4, 0.75), ("t0001", 1, 0.2),
        ("t0002", None, None),
    ]  # fmt: skip
    assert (rows[0]["peft.kind"], rows[4]["peft.ratio"], rows[5]["error"]) == ("lora", 0.25, "out of memory")
    assert rows[0]["at"].timestamp() == 1010.5


def test_a_completed_trial_shows_its_pictures_once(home: Home, log: Log, tmp_path: Path) -> None:
    pictures = [tmp_path / f"{number:04d}.png" for number in range(2)]
    for picture in pictures:
        Image.new("RGB", (8, 8)).save(picture)
    files = Files(images=pictures)
    track(home.tracking_uri, log, files)
    follower = LogFollower(home.tracking_uri, log.path, files)
    follower.writer.doubt()
    follower.catch_up()
    follower.close()
    client, found = MlflowClient(tracking_uri=home.tracking_uri), runs(home.tracking_uri)
    there = [file.path for file in client.list_artifacts(found["t0000"].info.run_id, "images")]
    assert len(there) == 4  # each in full and small
    # The grid shows one step of all trials, whose best epochs differ.
    assert all(path.startswith("images/validation~000") and "+step+0+timestamp+1052000+" in path for path in there)
    assert found["t0000"].data.tags["mlflow.loggedImages"]
    assert not client.list_artifacts(found["t0001"].info.run_id, "images")


# ------------------------------------------------------------------------------------------- nothing doubles


def test_sweeps_of_one_name_from_two_machines_stay_apart(home: Home, log: Log, tmp_path: Path) -> None:
    track(home.tracking_uri, log)
    track(home.tracking_uri, Log(tmp_path / "elsewhere" / "polyp-2", [started(at=2000.0), *three_trials()[1:2]]))
    assert len(all_runs(home.tracking_uri)) == 4 + 2


def test_every_cut_of_the_log_gives_the_same_runs_in_the_end(home: Home, tmp_path: Path) -> None:
    """A new process after each event, the second time without the saved position."""
    events = [*three_trials(), ended()]
    log = Log(tmp_path / "polyp-2")
    for event in events:
        log.write(event)
        follow(home.tracking_uri, log)
    whole = runs(home.tracking_uri)
    assert [step for step, _, _ in history(home.tracking_uri, whole["t0000"])] == [1, 2, 3, 4]
    for file in (log.path.parent / "tracking").glob("*.json"):
        file.unlink()
    follow(home.tracking_uri, log)
    again = runs(home.tracking_uri)
    assert {name: run.info.to_proto() for name, run in again.items()} == {
        name: run.info.to_proto() for name, run in whole.items()
    }
    assert len(history(home.tracking_uri, again["t0000"])) == 4


def test_a_store_that_was_emptied_gets_everything_again(home: Home, log: Log) -> None:
    track(home.tracking_uri, log)
    home.database.unlink()
    track(home.tracking_uri, log)
    found = runs(home.tracking_uri)
    assert set(found) == {"", "t0000", "t0001", "t0002"}
    assert len(history(home.tracking_uri, found["t0000"])) == 4


class Crash(Exception):
    """The end of a process."""


@pytest.mark.parametrize("method", ["create_run", "log_batch", "log_inputs", "set_terminated", "log_artifact"])
def test_a_crash_after_any_request_adds_nothing(
    home: Home, log: Log, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The server has done its work, the position was not saved: each call crashes once, every time in a new process."""
    crashed = 0
    real = getattr(MlflowClient, method)

    def crash(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        real(self, *arguments, **options)
        raise Crash

    for _ in range(4):
        monkeypatch.setattr(MlflowClient, method, crash)
        try:
            follow(home.tracking_uri, log)
        except Crash:
            crashed += 1
        monkeypatch.setattr(MlflowClient, method, real)
    follow(home.tracking_uri, log)
    assert crashed
    found = runs(home.tracking_uri)
    assert {name: run.info.status for name, run in found.items()} == {
        "": "FINISHED", "t0000": "FINISHED", "t0001": "KILLED", "t0002": "FAILED",
    }  # fmt: skip
    assert len(history(home.tracking_uri, found["t0000"])) == 4


def test_a_resumed_trial_goes_on_in_its_run(home: Home, tmp_path: Path) -> None:
    log = Log(
        tmp_path / "polyp-2",
        [*three_trials()[:5], TrialEnded(trial_id="t0000", state="KILLED", reason="user", at=1011.0), ended(at=1012.0)],
    )
    follow(home.tracking_uri, log)
    assert {run.info.status for run in runs(home.tracking_uri).values()} == {"KILLED", "FINISHED"}
    log.write(started(resumed=True, at=1100.0), TrialStarted(trial_id="t0000", values={}, at=1101.0))
    follow(home.tracking_uri, log)
    found = runs(home.tracking_uri)
    assert (found[""].info.status, found["t0000"].info.status) == ("RUNNING", "RUNNING")
    assert "stop_reason" not in found["t0000"].data.tags
    log.write(
        epoch("t0000", 2, 0.9, 1110.0),
        TrialEnded(trial_id="t0000", state="FINISHED", reason="completed", at=1111.0),
        ended(at=1112.0),
    )
    follow(home.tracking_uri, log)
    found = runs(home.tracking_uri)
    assert (found[""].info.status, found["t0000"].info.status) == ("FINISHED", "FINISHED")
    assert found["t0000"].info.run_name == "polyp-t0000-lora4-d0.900"
    assert [step for step, _, _ in history(home.tracking_uri, found["t0000"])] == [1, 2]


def test_one_process_at_a_time_writes_a_sweep_to_a_store(tmp_path: Path) -> None:
    log = Log(tmp_path / "polyp-2")
    position = Position(log.path, "http://name:secret@host:5000")
    with pytest.raises(UserError, match="another process writes polyp-2 there"):
        Position(log.path, "http://name:secret@host:5000")
    Position(log.path, "http://other:5000").close()
    position.save(12, {"": "r"})
    position.close()
    again = Position(log.path, "http://name:secret@host:5000")
    assert (again.offset, again.run_ids) == (12, {"": "r"})
    again.close()
    assert not any("secret" in file.read_text() for file in (log.path.parent / "tracking").iterdir())
    assert without_password("http://host:5000") == "http://host:5000"


# ------------------------------------------------------------------------------------------- what may go wrong


def test_a_bundle_that_cannot_be_made_does_not_keep_the_run_open(home: Home, log: Log) -> None:
    class Broken(Files):
        def bundle(self, trial_id: str) -> Path:
            raise OSError("disk full")

    assert track(home.tracking_uri, log, Broken()).unwritten == 0
    assert runs(home.tracking_uri)["t0000"].info.status == "FINISHED"
    assert runs(home.tracking_uri)["t0000"].data.tags["bundle_error"] == "disk full"


def test_a_record_the_server_refuses_is_lost_alone(home: Home, tmp_path: Path) -> None:
    bad = EpochReported(
        trial_id="t0000", epoch=5, values={"bad*name?": 1.0, "val/dice": 0.1}, checkpoint=None, is_best=False, at=1045.0
    )
    events = three_trials()
    log = Log(tmp_path / "polyp-2", [*events[:9], bad, *events[9:], ended()])
    result = track(home.tracking_uri, log)
    assert result.unwritten == 1
    assert "bad*name?" in (result.error or "")
    found = runs(home.tracking_uri)["t0000"]
    assert found.info.status == "FINISHED"
    assert len(history(home.tracking_uri, found)) == 5


def test_a_missing_server_costs_records_and_nothing_else(log: Log, free_port: int) -> None:
    warnings: list[str] = []
    uri = f"http://127.0.0.1:{free_port}"
    tracker = Tracker(uri, log.path, files=Files(), warn=warnings.append, patience_s=0.5)
    assert tracker.run_of("t0000") is None
    result = tracker.close()
    assert result.unwritten == len(three_trials()) + 1
    assert result.error
    assert len(warnings) == 1
    assert uri in warnings[0]


def test_a_blocked_server_holds_up_no_report(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread hangs in its first request; the log takes a thousand reports meanwhile, and all arrive afterwards."""
    release, hanging = threading.Event(), threading.Event()
    real = MlflowClient.create_run

    def hang(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        hanging.set()
        assert release.wait(60)
        return real(self, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "create_run", hang)
    log = Log(tmp_path / "polyp-2", three_trials()[:2])
    tracker = Tracker(home.tracking_uri, log.path, files=Files(), warn=lambda _: None)
    assert hanging.wait(60)
    log.write(*(epoch("t0000", number, 0.5, 1010.0 + number) for number in range(1, 1001)))
    assert not release.is_set()
    release.set()
    log.write(ended(at=3000.0))
    assert tracker.close().unwritten == 0
    found = runs(home.tracking_uri)["t0000"]
    assert [step for step, _, _ in history(home.tracking_uri, found)] == list(range(1, 1001))
    assert found.info.status == "KILLED"  # the log has no end for it


def test_a_flapping_server_gets_everything_once(home: Home, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the requests fails, half of those after the server did its work."""
    chance = random.Random(0)

    def flap(name: str) -> None:
        real = getattr(MlflowClient, name)

        def call(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
            draw = chance.random()
            if draw < 1 / 6:
                raise ConnectionError("before")
            result = real(self, *arguments, **options)
            if draw < 1 / 3:
                raise ConnectionError("after")
            return result

        monkeypatch.setattr(MlflowClient, name, call)

    for name in ("create_run", "log_batch", "set_terminated", "get_run", "search_runs", "log_text"):
        flap(name)
    monkeypatch.setattr("tune.tracking.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("tune.tracking.LONGEST_PAUSE_S", 0.02)
    warnings: list[str] = []
    tracker = Tracker(home.tracking_uri, log.path, files=Files(), warn=warnings.append, patience_s=60.0)
    assert tracker.close().unwritten == 0
    monkeypatch.undo()
    found = runs(home.tracking_uri)
    assert set(found) == {"", "t0000", "t0001", "t0002"}
    assert {run.info.status for run in found.values()} == {"FINISHED", "KILLED", "FAILED"}
    assert len(history(home.tracking_uri, found["t0000"])) == 4
    assert warnings[-1] == "MLflow takes records again"


@pytest.mark.slow
def test_a_server_that_comes_late_gets_everything_once(
    home: Home, log: Log, bundle: Path, free_port: int, serve: Callable[[Home, int], AbstractContextManager[str]]
) -> None:
    home.folder.mkdir(parents=True)
    home.database.touch()
    warnings: list[str] = []
    uri = f"http://127.0.0.1:{free_port}"
    tracker = Tracker(uri, log.path, files=Files(bundle), warn=warnings.append, patience_s=90.0)
    while not warnings:
        time.sleep(0.05)
    with serve(home, free_port) as uri:
        assert tracker.close().unwritten == 0
        found = runs(uri)
        assert set(found) == {"", "t0000", "t0001", "t0002"}
        assert all(run.info.status != "RUNNING" for run in found.values())
        run_id = found["t0000"].info.run_id
        assert [file.path for file in MlflowClient(tracking_uri=uri).list_artifacts(run_id, "bundle")] == [
            "bundle/card.json"
        ]
        with urlopen(f"{uri}/get-artifact?run_uuid={run_id}&path=bundle/card.json", timeout=30) as answer:
            assert answer.read() == b"{}"
    assert warnings[-1] == "MLflow takes records again"
