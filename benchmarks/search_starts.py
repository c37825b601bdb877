"""What a replayed search tries first on a domain: nothing, what the product ships, what earlier sweeps of other domains
found. Nothing of the target domain is ever looked at, but by the start that is told its best as a bound.

Configurations are ranked by the product's own rule (`tune.warm_start.ranked`), for the points that ship as well."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trial_table import DomainTable

from tune.config import SearchConfig
from tune.config.sweep import default_space
from tune.space import in_order
from tune.warm_start import PAPER, first_tried, places, ranked

Tables = Mapping[str, DomainTable]
Points = Sequence[Mapping[str, Any]]
Start = Callable[[str, int], Points]
"""Points for a domain under a seed."""
Sources = Callable[[Tables, int], Sequence[Mapping[int, float]]]
"""What earlier sweeps of these domains left under a seed: scores of configurations by number."""

ROWS = 16
"""Trials of an earlier sweep, as many as the shipped file has."""


def cold(_domain: str, _seed: int) -> Points:
    """Nothing."""
    return ()


def shipped(tables: Tables, size: int, *, paper: bool = False) -> Start:
    """The points that would ship if the domain were unknown; `paper`: and the paper's defaults, as in a first sweep."""
    return lambda domain, _: [*best_of(_others(tables, domain), size), *([paper_point()] if paper else [])]


def warm(tables: Tables, size: int, sources: Sources, *, in_a_row: bool = False) -> Start:
    """As a later sweep: the points that would ship, then what earlier sweeps found, then the paper's defaults.

    Args:
        size: how many points ship.
        in_a_row: without the sampled configurations that a sweep tries between those that were found."""
    trials = SearchConfig().trials

    def points(domain: str, seed: int) -> Points:
        others = _others(tables, domain)
        own = best_of(others, size)
        runs = next(iter(others.values())).runs
        found = [one for number in ranked(sources(others, seed)) if (one := runs[number].values) not in own]
        tried = first_tried(trials, own, found[: places(trials, size, paper=True)], paper_point())
        return [point for point in tried if point] if in_a_row else tried

    return points


def told(tables: Tables) -> Start:
    """The best configuration of the domain itself: no start can do better."""
    return lambda domain, _: [max(tables[domain].runs.values(), key=lambda run: max(run.curve())).values]


def best_of(tables: Tables, size: int) -> list[Mapping[str, Any]]:
    """The configurations that do best over these domains."""
    runs = next(iter(tables.values())).runs
    return [runs[number].values for number in ranked(all_rows(tables, 0))[:size]]


def all_rows(tables: Tables, _seed: int) -> Sequence[Mapping[int, float]]:
    """Every configuration in every domain, which no sweep leaves."""
    return [{number: max(run.curve()) for number, run in table.runs.items()} for table in tables.values()]


def some_rows(tables: Tables, seed: int) -> Sequence[Mapping[int, float]]:
    """Of each domain `ROWS` configurations drawn at random; about half of those of two domains are the same."""
    drawn = []
    for number, scores in enumerate(all_rows(tables, seed)):
        chosen = random.Random(f"{seed} {number}").sample(sorted(scores), min(ROWS, len(scores)))
        drawn.append({one: scores[one] for one in chosen})
    return drawn


def rows_apart(tables: Tables, seed: int) -> Sequence[Mapping[int, float]]:
    """The configurations dealt out among the domains, so that no two have tried the same, as real sweeps."""
    everything = all_rows(tables, seed)
    numbers = sorted(set.intersection(*({*scores} for scores in everything)))
    random.Random(seed).shuffle(numbers)
    return [{one: scores[one] for one in numbers[at :: len(everything)]} for at, scores in enumerate(everything)]


def paper_point() -> dict[str, Any]:
    """What of the paper's defaults the default space holds."""
    return {path: PAPER[path] for path in in_order(default_space()) if path in PAPER}


def _others(tables: Tables, target: str) -> dict[str, DomainTable]:
    return {name: table for name, table in tables.items() if name != target}
