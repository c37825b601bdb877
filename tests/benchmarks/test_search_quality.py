"""The table of runs and the searches replayed over it, in their quick form, and the replay's own rules."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chosen_defaults import NAME
from replay import Outcome, Rules, replay
from search_quality import SEARCHES, made_up_table, settings_of
from search_starts import told
from trial_table import read_table, write_domain

from tune.config import SweepConfig
from tune.config.sweep import default_space

Quick = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_runs_are_tabulated_and_not_trained_twice(quick: Quick, tmp_path: Path) -> None:
    arguments = ("--out", str(tmp_path / "table"), "--work", str(tmp_path / "work"))
    assert quick("tabulate_runs", *arguments)["trials"] == {"spores": 2}
    table = read_table(tmp_path / "table")["spores"]
    assert sorted(table.runs) == [0, 1]
    for run in table.runs.values():
        assert [len(run.curve(name)) for name in ("val/box/dice", "val/none/iou", "loss/structure")] == [2, 2, 2]
        assert all(default_space()[path].contains(value) for path, value in run.values.items())
    assert table.zero_shot.keys() >= {"val/box/dice", "val/none/dice"}
    written = (tmp_path / "table" / "spores.parquet").stat().st_mtime_ns
    assert quick("tabulate_runs", *arguments)["trials"] == {"spores": 2}
    assert (tmp_path / "table" / "spores.parquet").stat().st_mtime_ns == written


@pytest.mark.slow
def test_searches_are_replayed_and_drawn(quick: Quick, tmp_path: Path) -> None:
    found = quick("search_quality", "--out", str(tmp_path))
    rows = found["searches"]["2"]
    assert rows.keys() >= {f"{name} {start}" for name in SEARCHES for start in ("cold", "later sweep")}
    assert found["shipped"] in rows
    assert rows["random cold"]["share_reached"] == 1.0  # nothing is stopped, so the best is always found
    assert {*rows["random cold"]["ratio_to_random"].values()} == {1.0}
    for row in found["by_domain"]["2"].values():
        assert row["configurations_that_reach"] >= 1  # the best itself
        assert row["median_epochs_to_99"].keys() == rows.keys()
    figures = {f"search-quality-{name}.svg" for name in ("cold", "warm", "starts")}
    assert {file.name for file in tmp_path.glob("*.svg")} == figures
    published = json.loads(next(tmp_path.glob("*-search-quality.json")).read_text())
    assert published["figures"] == found
    assert yaml.safe_load((tmp_path / NAME).read_text()) == found["chosen"]


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    tables = made_up_table(configurations=3)
    for table in tables.values():
        write_domain(table, tmp_path)
    assert read_table(tmp_path) == tables


def test_a_replay_without_stopping_trains_every_epoch_of_the_table() -> None:
    table = made_up_table(configurations=5, epochs=8)["dots"]
    outcome = replay(table, Rules(*settings_of("random"), slots=2), seed=0)
    assert len(outcome.best) == 5 * 8
    assert outcome.seconds[-1] == pytest.approx(3 * 8 * 3.0)  # five trials of 24 s on two slots
    assert outcome.best[-1] == table.best


def test_asha_trains_fewer_epochs_and_the_same_seed_repeats() -> None:
    table = made_up_table(configurations=8)["dots"]
    rules = Rules(*settings_of("tpe+asha"))
    outcome = replay(table, rules, seed=1)
    assert len(outcome.best) < 8 * 8
    assert replay(table, rules, seed=1) == outcome


def test_a_replay_told_the_best_has_it_at_once_and_may_end_there() -> None:
    tables = made_up_table(configurations=8)
    rules = Rules(*settings_of("random"), slots=1)
    best = told(tables)("dots", 1)
    whole = replay(tables["dots"], rules, seed=0, points=best)
    assert whole.epochs_to(1.0) <= 8
    part = replay(tables["dots"], rules, seed=0, points=best, until=1.0)
    assert part.epochs_to(1.0) == whole.epochs_to(1.0) == len(part.best)
    assert part.regret_after(50) == whole.regret_after(50) == 0


def test_an_empty_point_is_sampled() -> None:
    table = made_up_table(configurations=8)["dots"]
    rules = Rules(*settings_of("random"), slots=1)
    assert replay(table, rules, seed=3, points=[{}, {}]) == replay(table, rules, seed=3)


def test_the_searches_are_those_of_the_shipped_settings() -> None:
    shipped = SweepConfig.model_validate({"data": "x"})
    search, scheduler = settings_of("tpe+asha")
    assert search == shipped.search
    assert scheduler == shipped.scheduler


def test_what_was_never_reached_took_for_ever() -> None:
    outcome = Outcome("dots", 0.9, [1.0, 2.0], [0.5, 0.6])
    assert outcome.epochs_to(0.99) == math.inf
    assert outcome.epochs_to(0.6) == 2
    assert outcome.regret_after(1) == pytest.approx(0.4)
