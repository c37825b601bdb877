"""A trial as messages: reports, completion and every kind of failure."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from infosam.config import RunConfig
from tune import noop
from tune.worker import Failure, Job, Message, Report, TrainingEntry, failure_of, messages, mirrored, training_entry

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> TrainingEntry:
    monkeypatch.syspath_prepend(str(FAKES))
    return training_entry("odd_training")


def play(entry: TrainingEntry, tmp_path: Path, lr: float, epochs: int = 4) -> list[Message]:
    config = RunConfig.model_validate({"optim": {"lr": lr}, "train": {"epochs": epochs}}).model_dump(mode="json")
    job = Job(trial_id="t0000", config=config, checkpoint_dir=str(tmp_path), data="")
    return list(messages(job, entry, noop.NoopMaterials()))


def test_the_last_epoch_completes_the_trial(tmp_path: Path) -> None:
    reports = play(training_entry("tune.noop"), tmp_path, 1e-3)
    assert all(isinstance(one, Report) for one in reports)
    assert [(one.epoch, one.completed) for one in reports if isinstance(one, Report)] == [
        (1, False), (2, False), (3, False), (4, True),
    ]  # fmt: skip


def test_a_run_that_ends_early_by_itself_is_complete(odd: TrainingEntry, tmp_path: Path) -> None:
    reports = [one for one in play(odd, tmp_path, 0.4) if isinstance(one, Report)]
    assert [(one.epoch, one.completed) for one in reports] == [(1, False), (2, False), (2, True)]


def test_a_raising_trial_ends_in_a_failure_with_its_last_line(odd: TrainingEntry, tmp_path: Path) -> None:
    first, last = play(odd, tmp_path, 0.5)
    assert isinstance(first, Report)
    assert isinstance(last, Failure)
    assert last.error == "is where it breaks"
    assert "Traceback" in last.trace
    assert not last.fatal


def test_an_objective_that_is_not_finite_is_a_failure(odd: TrainingEntry, tmp_path: Path) -> None:
    last = play(odd, tmp_path, 0.6)[-1]
    assert isinstance(last, Failure)
    assert "val/dice is nan in epoch 2" in last.error


def test_a_configuration_that_is_none_is_a_failure(tmp_path: Path) -> None:
    job = Job(trial_id="t0000", config={"optim": {"lr": -1}}, checkpoint_dir=str(tmp_path), data="")
    (last,) = messages(job, training_entry("tune.noop"), noop.NoopMaterials())
    assert isinstance(last, Failure)


def test_training_without_any_epoch_is_a_failure(odd: TrainingEntry, tmp_path: Path) -> None:
    (tmp_path / "epochs").write_text("5")
    (last,) = play(odd, tmp_path, 1e-3)
    assert isinstance(last, Failure)
    assert "without a report" in last.error


def test_a_trial_that_runs_out_of_memory_says_what_helps(odd: TrainingEntry, tmp_path: Path) -> None:
    last = play(odd, tmp_path, 0.9)[-1]
    assert isinstance(last, Failure)
    assert last.error.startswith("out of memory (MemoryError: no room for 3 GiB); this trial alone failed: ")
    assert "infosam calibrate" in last.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_torch_too(error: Exception) -> None:
    assert failure_of(error).error.startswith("out of memory (")
    assert "\n" not in failure_of(error).error


def test_a_resumed_trial_tells_its_last_epoch_again(odd: TrainingEntry, tmp_path: Path) -> None:
    (tmp_path / "epochs").write_text("3")
    assert [one.epoch for one in play(odd, tmp_path, 1e-3) if isinstance(one, Report)] == [3, 4]


def test_an_exception_without_text_still_says_what_it_was() -> None:
    assert "KeyError" in failure_of(KeyError()).error


def mirrored_trial(
    tmp_path: Path, machine: str, mirror: Path, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> list[Any]:
    """Epochs that a trial of four reports on a machine, before it is cut off after so many."""
    monkeypatch.syspath_prepend(str(FAKES))
    entry = training_entry("lasting_training")
    config = RunConfig.model_validate({"train": {"epochs": 4}}).model_dump(mode="json")
    folder = tmp_path / machine / "sweeps" / "s" / "trials" / "t0" / "checkpoints"
    job = Job(trial_id="t0", config=config, checkpoint_dir=str(folder), data="", mirror=f"file://{mirror}")
    stream = mirrored(messages(job, entry, noop.NoopMaterials()), job, is_first=True)
    return [one.epoch if isinstance(one, Report) else one for one in islice(stream, epochs)]


def test_a_trial_goes_on_from_its_mirror_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "bucket" / "t0"
    assert mirrored_trial(tmp_path, "one", mirror, 2, monkeypatch) == [1, 2]
    assert mirrored_trial(tmp_path, "two", mirror, 9, monkeypatch) == [2, 3, 4]


def test_a_mirror_that_cannot_be_written_to_ends_no_trial_by_its_own_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.bucket.FIRST_PAUSE_S", 0.0)
    (tmp_path / "bucket").write_text("a file is in its place")
    (failure,) = mirrored_trial(tmp_path, "one", tmp_path / "bucket" / "t0", 9, monkeypatch)
    assert isinstance(failure, Failure)
    assert failure.disk_full
