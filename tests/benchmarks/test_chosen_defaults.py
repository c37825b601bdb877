"""The defaults of the shipped sweep file are those that the replay chose, and the choice follows its rules."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from chosen_defaults import (
    NAME,
    cheapest,
    cost,
    portfolio,
    share_reached,
    table_digest,
    where_the_best_lie,
    write_defaults,
)
from replay import Outcome
from search_quality import Bench, made_up_table
from trial_table import DomainTable, Run, write_domain

from tune.cli import shipped
from tune.config import load_sweep_config
from tune.config.sweep import default_space

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_the_shipped_sweep_has_what_the_replay_chose() -> None:
    chosen = yaml.safe_load((RESULTS / NAME).read_text(encoding="utf-8"))
    config = load_sweep_config(shipped("default")).model_dump(mode="json")
    for section in ("search", "scheduler"):
        assert {key: config[section][key] for key in chosen[section]} == chosen[section]


def test_the_choice_was_made_on_the_table_that_is_there() -> None:
    chosen = yaml.safe_load((RESULTS / NAME).read_text(encoding="utf-8"))
    assert chosen["table"] in (None, table_digest(RESULTS / "table"))


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


def test_a_portfolio_covers_the_domains() -> None:
    tables = domains(
        dots=[[0.9], [0.7], [0.85]],
        rings=[[0.4], [0.8], [0.7]],
    )
    assert portfolio(tables, 1) == [{"number": 2}]  # good in both
    assert portfolio(tables, 2) == [{"number": 2}, {"number": 1}]  # then what is best where most is left
    assert portfolio(tables, 5) == [{"number": 2}, {"number": 1}, {"number": 0}]


def test_points_for_a_domain_are_found_on_the_others() -> None:
    tables = made_up_table(configurations=8)
    others = {name: table for name, table in tables.items() if name != "dots"}
    bench = Bench(tables, seeds=1, gp_seeds=1, slots=1)
    tables["dots"].runs.clear()  # nothing of it may be needed
    assert bench._from_others(2)("dots") == portfolio(others, 2)


def test_where_the_best_lie_counts_choices_and_zeros() -> None:
    tables = made_up_table(configurations=6)
    found = where_the_best_lie(tables, default_space())
    assert sum(found["peft.kind"].values()) == 4 * 3
    rates = [run.values["optim.lr"] for run in tables["dots"].runs.values()]
    assert min(rates) * 0.99 <= found["optim.lr"]["low"] <= found["optim.lr"]["high"] <= max(rates) * 1.01


def test_the_file_holds_what_was_chosen(tmp_path: Path) -> None:
    point = {"peft.kind": "lora", "peft.rank": 4, "optim.lr": 0.00048273}
    content = write_defaults(
        tmp_path, table="ab", search={"sampler": "tpe", "points": [point]}, scheduler={"kind": "none"}
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
