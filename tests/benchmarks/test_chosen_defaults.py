"""The defaults of the shipped sweep file are those that the replay chose, and the choice follows its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from chosen_defaults import (
    NAME,
    cheapest,
    cost,
    rounded,
    share_reached,
    table_digest,
    where_the_best_lie,
    write_defaults,
)
from quote_results import SEARCHES
from replay import Outcome
from results_file import newest
from search_quality import STARTS, made_up_table
from search_starts import all_rows, best_of, paper_point, rows_apart, some_rows, warm
from search_starts import shipped as shipped_start
from trial_table import DomainTable, Run, read_table, write_domain

from tune.cli import shipped
from tune.config import load_sweep_config
from tune.config.sweep import default_space
from tune.warm_start import warm_started

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def chosen() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((RESULTS / NAME).read_text(encoding="utf-8"))
    return content


def test_the_shipped_sweep_has_what_the_replay_chose(chosen: dict[str, Any]) -> None:
    config = load_sweep_config(shipped("default")).model_dump(mode="json")
    for section in ("search", "scheduler"):
        assert {key: config[section][key] for key in chosen[section]} == chosen[section]
    assert config["warm_start"] == chosen["warm_start"]


def test_the_choice_was_made_on_the_table_that_is_there_and_published(chosen: dict[str, Any]) -> None:
    assert chosen["table"] == table_digest(RESULTS / "table")
    published = newest(RESULTS, SEARCHES)
    assert published is not None
    assert published["figures"]["chosen"] == chosen
    assert published["figures"]["shipped"].endswith(STARTS[chosen["warm_start"]])


def test_the_points_that_ship_are_those_that_were_replayed(chosen: dict[str, Any]) -> None:
    """By the rule that warm starts share: the best of all domains ship, those of the others were replayed."""
    tables = read_table(RESULTS / "table")
    points = chosen["search"]["points"]
    found = best_of(tables, len(points))
    assert points == [{path: rounded(value) for path, value in point.items()} for point in found]
    left = {name: table for name, table in tables.items() if name != "polyp"}
    assert shipped_start(tables, len(points))("polyp", 1) == best_of(left, len(points))
    config = load_sweep_config(shipped("default"))
    tried = warm_started(config.model_copy(update={"warm_start": "auto"}), "disc", [])[0].search.points
    assert tried == [*points, paper_point()]
    assert shipped_start(tables, len(points), paper=True)("polyp", 1)[-1] == paper_point()


def domains(**curves: list[list[float]]) -> dict[str, DomainTable]:
    """Tables with one run for each curve."""
    return {
        name: DomainTable(
            domain=name,
            settings={},
            zero_shot={},
            runs={
                number: Run(number=number, values={"number": number}, epochs=[{"val/dice": score} for score in curve])
                for number, curve in enumerate(of_runs)
            },
        )
        for name, of_runs in curves.items()
    }


def test_a_replay_that_never_reaches_the_goal_costs_all_epochs() -> None:
    tables = domains(dots=[[0.5, 0.9], [0.5, 0.6]])
    found = Outcome("dots", 0.9, [1.0, 2.0, 3.0], [0.5, 0.6, 0.9])
    lost = Outcome("dots", 0.9, [1.0, 2.0], [0.5, 0.6])
    assert cost([found, lost], tables, 0.99) == pytest.approx((3 + 4) / 2)
    assert share_reached([found, lost], 0.99) == 0.5


def test_of_nearly_equal_searches_the_safer_one_is_chosen() -> None:
    tables = domains(dots=[[0.9] * 100])
    reaching = Outcome("dots", 0.9, list(range(100)), [0.0] * 99 + [0.9])
    lost = Outcome("dots", 0.9, [1.0], [0.0])
    sooner = Outcome("dots", 0.9, list(range(96)), [0.0] * 95 + [0.9])
    assert cheapest({"risky": [sooner, lost], "safe": [reaching, reaching]}, tables, 0.99) == "safe"
    assert cheapest({"risky": [sooner, sooner], "safe": [reaching, reaching]}, tables, 0.99) == "risky"
    clear = Outcome("dots", 0.9, [1.0], [0.9])
    assert cheapest({"safe": [reaching, reaching], "cheap": [clear, lost]}, tables, 0.99) == "cheap"


def test_points_for_a_domain_are_found_on_the_others() -> None:
    tables = made_up_table(configurations=8)
    others = {name: table for name, table in tables.items() if name != "dots"}
    tables["dots"].runs.clear()  # nothing of it may be needed
    assert shipped_start(tables, 2)("dots", 1) == best_of(others, 2)
    assert shipped_start(tables, 0)("dots", 1) == []
    *found, paper = [point for point in warm(tables, 2, some_rows)("dots", 1) if point]
    assert paper == paper_point()
    assert found[:2] == best_of(others, 2)
    assert all(any(one == run.values for run in others["lines"].runs.values()) for one in found)


def test_earlier_sweeps_leave_some_of_the_rows() -> None:
    tables = made_up_table(configurations=24)
    everything = all_rows(tables, 1)
    drawn = some_rows(tables, 1)
    assert [len(one) for one in drawn] == [16, 16, 16]
    assert drawn[0].keys() != drawn[1].keys()
    assert some_rows(tables, 1) == drawn != some_rows(tables, 2)
    for scores, known in zip(drawn, everything, strict=True):
        assert scores.items() <= known.items()
    apart = rows_apart(tables, 1)
    assert sorted(number for one in apart for number in one) == sorted(everything[0])


def test_where_the_best_lie_counts_choices_and_zeros() -> None:
    tables = made_up_table(configurations=6)
    found = where_the_best_lie(tables, default_space())
    assert sum(found["peft.kind"].values()) == 4 * 3
    rates = [run.values["optim.lr"] for run in tables["dots"].runs.values()]
    assert min(rates) * 0.99 <= found["optim.lr"]["low"] <= found["optim.lr"]["high"] <= max(rates) * 1.01


def test_the_file_holds_what_was_chosen(tmp_path: Path) -> None:
    point = {"peft.kind": "lora", "peft.rank": 4, "optim.lr": 0.00048273}
    content = write_defaults(
        tmp_path,
        table="ab",
        search={"sampler": "tpe", "points": [point]},
        scheduler={"kind": "none"},
        warm_start="off",
    )
    assert yaml.safe_load((tmp_path / NAME).read_text()) == content
    assert content["search"]["points"] == [{"peft.kind": "lora", "peft.rank": 4, "optim.lr": 0.000483}]


def test_a_table_has_a_digest_of_its_content(tmp_path: Path) -> None:
    assert table_digest(tmp_path) is None
    tables = made_up_table(configurations=2)
    write_domain(tables["dots"], tmp_path)
    first = table_digest(tmp_path)
    write_domain(tables["rings"], tmp_path)
    assert first is not None
    assert table_digest(tmp_path) != first
