"""How runs are named and tagged, and the table of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stories import ended, epoch, started

from tune.config import SchedulerConfig
from tune.events import TrialEnded, TrialStarted
from tune.ledger import Ledger, TrialRecord
from tune.mlflow_runs import sweep_marks, sweep_tags, trial_name, trial_tags
from tune.results_table import write_results
from tune.sweep_facts import rungs, source_commit

FIXED = {"peft.kind": "lora", "peft.rank": 4}


@pytest.mark.parametrize(
    ("params", "values", "name"),
    [
        ({}, {"peft.kind": "lora", "peft.rank": 8}, "polyp-t0042-lora8"),
        ({}, {"peft.kind": "adapter", "peft.width": 16}, "polyp-t0042-adapter16"),
        ({}, {"peft.kind": "adaptformer", "peft.ratio": 0.0625}, "polyp-t0042-adaptformer-r0.0625"),
        (FIXED, {"optim.lr": 0.1}, "polyp-t0042-lora4"),
        (FIXED, {"peft.rank": 2}, "polyp-t0042-lora2"),
        (FIXED, {"peft.kind": "bitfit"}, "polyp-t0042-bitfit"),
        ({}, {"optim.lr": 0.1}, "polyp-t0042"),
    ],
)
def test_names_say_domain_trial_kind_and_width(params: dict[str, Any], values: dict[str, Any], name: str) -> None:
    assert trial_name(started(params=params), TrialRecord("t0042", values)) == name


def test_an_ended_trial_has_its_best_score_in_its_name() -> None:
    trial = TrialRecord("t0042", FIXED, epochs=[epoch("t0042", 1, 0.8123, 1.0), epoch("t0042", 2, 0.7, 2.0)])
    assert trial_name(started(), trial) == "polyp-t0042-lora4"
    trial.end = TrialEnded(trial_id="t0042", state="FINISHED", reason="completed")
    assert trial_name(started(), trial) == "polyp-t0042-lora4-d0.812"


def test_the_rung_is_the_last_one_reached() -> None:
    trial = TrialRecord("t0042", FIXED)
    assert trial_tags(started(), trial)["rung"] == "0"
    trial.epochs = [epoch("t0042", number, 0.5, 1.0) for number in (1, 2, 3)]
    assert trial_tags(started(), trial)["rung"] == "2"


def test_another_seed_than_the_sweeps_is_told() -> None:
    assert trial_tags(started(), TrialRecord("r0042-s1", {"train.seed": 9}))["seed"] == "9"
    assert trial_tags(started(), TrialRecord("t0042", {}))["seed"] == "7"


def test_the_end_replaces_the_note() -> None:
    assert "is running" in sweep_tags(started(), None)["mlflow.note.content"]
    assert sweep_tags(started(), ended())["mlflow.note.content"] == "# Done"


def test_marks_hold_the_first_start() -> None:
    marks = sweep_marks(started(at=99.0), 1000.0625)
    assert marks == {"sweep_id": "polyp-2", "sweep_start": "1970-01-01T00:16:40.062+00:00"}


@pytest.mark.parametrize(
    ("settings", "epochs", "expected"),
    [
        ({"kind": "none"}, 10, (10,)),
        ({"kind": "asha", "grace_epochs": 1, "reduction": 3}, 10, (1, 3, 9, 10)),
        ({"kind": "asha", "grace_epochs": 2, "reduction": 2}, 8, (2, 4, 8)),
    ],
)
def test_rungs_end_with_the_last_epoch(settings: dict[str, Any], epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(SchedulerConfig(**settings), epochs) == expected


def test_the_code_that_ran_has_a_name() -> None:
    assert source_commit()


def test_a_column_with_numbers_and_text_is_text(tmp_path: Path) -> None:
    ledger = Ledger()
    for event in (
        started(),
        TrialStarted(trial_id="t0000", values={"a": 1, "b": 1, "c": True}),
        TrialStarted(trial_id="t0001", values={"a": 0.5, "b": "wide", "c": False}),
    ):
        ledger(event)
    table = pq.read_table(write_results(ledger, {}, tmp_path / "results.parquet"))
    assert [table.schema.field(name).type for name in "abc"] == [pa.float64(), pa.string(), pa.bool_()]
    assert table.column("b").to_pylist() == ["1", "wide"]
    assert table.column("state").to_pylist() == ["RUNNING", "RUNNING"]
