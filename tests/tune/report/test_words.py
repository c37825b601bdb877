from __future__ import annotations

from pathlib import Path

import pytest
from made_sweeps import make_sweep

from tune.report import words
from tune.report.record import open_record


def test_cost_counts_epochs_and_what_early_stopping_saved(tmp_path: Path) -> None:
    record = open_record(make_sweep(tmp_path / "polyp", trials=3, epochs=8))
    cost = dict(words.cost(record))
    assert cost["epochs trained"] == "14, 58% of 24 without early ends"  # 8, 4 and 2
    assert cost["time in epochs, all trials together"] == "56.8 s"  # 8 x 4.0 + 4 x 4.1 + 2 x 4.2 s
    assert dict(words.stop_reasons(record)) == {
        "trained to its end": 1, "stopped early: others were better at the same epoch": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (200.0, "3 min 20 s"), (3900.0, "1 h 05 min"), (7199.0, "2 h 00 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_a_setting_at_the_edge_of_its_range_is_named(tmp_path: Path) -> None:
    space = {"space": {"peft.rank": {"int_uniform": [2, 3]}, "optim.lr": {"log_uniform": [1e-6, 1e-1]}}}
    record = open_record(make_sweep(tmp_path / "polyp", trials=1, settings=space))
    told = words.recommendation(record, [])
    assert "The best trial lies at the edge of the range of peft.rank: widen it there." in told


def test_a_relation_that_says_nothing_any_more_is_told(tmp_path: Path) -> None:
    settings = {"space": {"optim.lr": {"log_uniform": [1e-6, 1e-1]}}}
    record = open_record(make_sweep(tmp_path / "polyp", trials=1, settings=settings))
    assert record.champion is not None
    assert not [line for line in words.recommendation(record, []) if "info.compression" in line]
    record.champion.epochs[-1].values["info/entropy_teacher"] = 0.018
    told = [line for line in words.recommendation(record, []) if "info.compression" in line]
    assert len(told) == 1
    assert "ended at 0.02 bits" in told[0]
    record.champion.values["info.distillation"] = 0.0
    assert not [line for line in words.recommendation(record, []) if "info.compression" in line]
