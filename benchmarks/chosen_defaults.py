"""The product's defaults as the replay supports them: which search, which rungs, which configurations to try first, and
whether earlier sweeps say which come next.

A search costs the mean number of epochs until it reaches the goal; a replay that never does counts with all epochs of
its table. Of searches within `TOLERANCE` of the cheapest, that one is chosen whose replays reach the goal most often,
and of equal ones the first: those with early stopping stand first, because a sweep goes on after it has its best, and
`warm_start: auto` stands before `off`, because a user's earlier sweeps may be nearer to the next one than these tables.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from replay import Outcome
from trial_table import DomainTable

from tune.space import Choice, Space

NAME = "chosen_defaults.yaml"
TOLERANCE = 0.05
GRACE_EPOCHS, REDUCTIONS = (1, 2, 4, 6), (2.0, 3.0, 4.0)
SHIPPED = (1, 2, 3, 4)
"""How many configurations may ship as the first to try."""
DIGITS = 3
BEST = 4
"""So many configurations of a domain are looked at by `where_the_best_lie`."""


def cost(outcomes: Sequence[Outcome], tables: Mapping[str, DomainTable], share: float) -> float:
    """Mean epochs until `share` of the best known score."""
    return statistics.fmean(min(one.epochs_to(share), all_epochs(tables[one.domain])) for one in outcomes)


def cheapest(found: Mapping[str, Sequence[Outcome]], tables: Mapping[str, DomainTable], share: float) -> str:
    """The name of the search to choose, the first of equal ones."""
    costs = {name: cost(outcomes, tables, share) for name, outcomes in found.items()}
    near = [name for name, one in costs.items() if one <= min(costs.values()) * (1 + TOLERANCE)]
    return max(near, key=lambda name: (share_reached(found[name], share), -near.index(name)))


def share_reached(outcomes: Sequence[Outcome], share: float) -> float:
    """How many of the replays reach `share` of the best known score at all."""
    return sum(one.epochs_to(share) < float("inf") for one in outcomes) / len(outcomes)


def where_the_best_lie(tables: Mapping[str, DomainTable], space: Space) -> dict[str, Any]:
    """Of each setting, what the best configurations of all domains have: counts of choices, or lowest, median and
    highest number, and how many are 0."""
    best = [
        run.values
        for table in tables.values()
        for run in sorted(table.runs.values(), key=lambda run: (-max(run.curve()), run.number))[:BEST]
    ]
    found: dict[str, Any] = {}
    for path, distribution in space.items():
        values = [one[path] for one in best if path in one]
        if isinstance(distribution, Choice):
            found[path] = {str(value): values.count(value) for value in distribution.choice}
        elif values:
            found[path] = {
                "low": rounded(min(values)),
                "median": rounded(statistics.median(values)),
                "high": rounded(max(values)),
                "of": len(values),
                "zero": values.count(0.0),
            }
    return found


def write_defaults(
    out: Path, *, table: str | None, search: Mapping[str, Any], scheduler: Mapping[str, Any], warm_start: str
) -> dict[str, Any]:
    """Writes the file and gives its content. `table` is the digest of the table that it was chosen on."""
    points = [{path: rounded(value) for path, value in point.items()} for point in search["points"]]
    content = {
        "table": table,
        "search": {**search, "points": points},
        "scheduler": dict(scheduler),
        "warm_start": warm_start,
    }
    said = (
        "# Written by benchmarks/search_quality.py from the table of runs with this digest (null: there is none yet).\n"
        "# tune/sweeps/default.yaml ships these settings; a test compares the two.\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / NAME).write_text(said + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return content


def table_digest(folder: Path) -> str | None:
    """SHA-256 over the files of a table; None where there are none."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def rounded(value: Any) -> Any:
    """A number as a person would write it."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def all_epochs(table: DomainTable) -> int:
    """Of all its runs."""
    return sum(len(run.epochs) for run in table.runs.values())
