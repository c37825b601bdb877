"""How many epochs a search needs, replayed over a table of finished runs (`tabulate_runs.py`) with a simulated clock.

    python benchmarks/search_quality.py [--table FOLDER] [--seeds 50] [--gp-seeds 10] [--slots 4] [--out FOLDER]
                                        [--quick]

Searches: random, TPE, TPE + ASHA and GP, with the product's own samplers and schedulers at their shipped settings, each
cold and warm-started. Warm: first the best configurations of the other domains, by the rule of `warm_start: auto`, with
the paper's defaults before them; nothing of the target domain is known. A configuration that a sampler proposes stands
for the nearest one in the table that was not tried yet, and the sampler learns that one. Trials run on --slots slots at
a time, an epoch takes the median seconds of its run, and every epoch counts that any of them trains.

Given for each search, over domains and seeds: epochs until a trial reaches 99 % of the best validation Dice of the
table (median, and the share of replays that reach it at all: early stopping may end the best), and the regret after
given numbers of epochs; and the median for each domain alone, since domains differ in how many configurations are that
good. Then the product's defaults are chosen (`chosen_defaults.py`): sampler, scheduler and ASHA's
rungs by cold and warm replays together, and the points that a search without earlier ones tries first, which for each
domain are found on the others. --out gets figures (dated JSON), regret curves with 10-90 % bands (SVG) and the chosen
defaults (YAML). The last line is one JSON object. --quick replays one seed over a small table made by a formula.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chosen_defaults import (
    GRACE_EPOCHS,
    PORTFOLIOS,
    REDUCTIONS,
    cheapest,
    cost,
    portfolio,
    share_reached,
    table_digest,
    where_the_best_lie,
    write_defaults,
)
from regret_figure import draw_regret
from replay import Outcome, Rules, replay
from results_file import publish
from trial_table import DomainTable, Run, read_table

from tune.config import SchedulerConfig, SearchConfig
from tune.config.sweep import default_space
from tune.space import in_order
from tune.study import quiet
from tune.warm_start import BEST_OF_EACH, PAPER, SHARE

REACHED = 0.99
"""Share of the best known score that counts as found."""
SEARCHES: Mapping[str, tuple[str, str]] = {
    "random": ("random", "none"),
    "tpe": ("tpe", "none"),
    "tpe+asha": ("tpe", "asha"),
    "gp": ("gp", "none"),
}
GOAL = ("tpe+asha", "warm")
"""The search that the product ships, which should need a quarter of the epochs of cold random search."""


Settings = tuple[SearchConfig, SchedulerConfig]
Starts = Callable[[str], Sequence[Mapping[str, Any]]]
"""The points to try first on a domain."""


def main() -> None:
    arguments = _arguments()
    quiet(verbose=False)
    tables = made_up_table() if arguments.quick else read_table(arguments.table)
    if not tables:
        raise SystemExit(f"{arguments.table}: no table there; make one with benchmarks/tabulate_runs.py")
    bench = Bench(tables, seeds=arguments.seeds, gp_seeds=arguments.gp_seeds, slots=arguments.slots)
    found = bench.searches()
    figures = summary(found)
    figures["by_domain"] = by_domain(found, tables)
    figures |= {"domains": len(tables), "configurations": {name: len(table.runs) for name, table in tables.items()}}
    figures |= {"seeds": arguments.seeds, "gp_seeds": arguments.gp_seeds, "slots": arguments.slots}
    chosen, figures["choice"] = bench.choose(found)
    figures["best_configurations"] = where_the_best_lie(tables, default_space())
    if arguments.out is not None:
        digest = None if arguments.quick else table_digest(arguments.table)
        figures["chosen"] = write_defaults(arguments.out, table=digest, **chosen)
        publish(arguments.out, "search-quality", figures)
        for start in ("cold", "warm"):
            draw_regret(
                {name: outcomes for name, outcomes in found.items() if name.endswith(start)},
                arguments.out / f"search-quality-{start}.svg",
            )
    print(json.dumps(figures))


class Bench:
    """Replays over all domains of a table."""

    def __init__(self, tables: Mapping[str, DomainTable], *, seeds: int, gp_seeds: int, slots: int) -> None:
        self._tables, self._seeds, self._gp_seeds, self._slots = tables, seeds, gp_seeds, slots

    def searches(self) -> dict[str, list[Outcome]]:
        """The searches of `SEARCHES`, cold and warm."""
        return {
            f"{name} {start}": self._replayed(settings_of(name), self._warm if start == "warm" else _cold)
            for name in SEARCHES
            for start in ("cold", "warm")
        }

    def choose(self, found: Mapping[str, Sequence[Outcome]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings of search and scheduler, and what the candidates cost."""
        candidates: dict[str, tuple[Settings, list[Outcome]]] = {}
        for grace in GRACE_EPOCHS:
            for reduction in REDUCTIONS:
                rungs = {"kind": "asha", "grace_epochs": grace, "reduction": reduction}
                settings = settings_of("tpe")[0], SchedulerConfig.model_validate(rungs)
                outcomes = [*self._replayed(settings, _cold), *self._replayed(settings, self._warm)]
                candidates[f"tpe+asha, grace {grace}, reduction {reduction:g}"] = settings, outcomes
        for name, (_, scheduler) in SEARCHES.items():
            if scheduler != "asha":
                candidates[name] = settings_of(name), [*found[f"{name} cold"], *found[f"{name} warm"]]
        name, costs = self._cheapest({name: outcomes for name, (_, outcomes) in candidates.items()})
        search, stopping = candidates[name][0]
        first, costs_of_points = self._choose_points((search, stopping))
        kept: dict[str, Any] = {"kind": stopping.kind}
        if stopping.kind == "asha":
            kept |= {"grace_epochs": stopping.grace_epochs, "reduction": stopping.reduction}
        chosen = {"search": {"sampler": search.sampler, "points": first}, "scheduler": kept}
        return chosen, {"searches": costs, "points": costs_of_points}

    def _choose_points(self, settings: Settings) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
        """What a search that knows of no other tries first."""
        paper = _fitting(PAPER)
        sets: dict[str, tuple[Sequence[Mapping[str, Any]], Starts]] = {
            "none": ([], _cold),
            "paper": ([paper], lambda domain: [paper]),
        }
        for size in PORTFOLIOS:
            sets[f"portfolio of {size}"] = portfolio(self._tables, size), self._from_others(size)
        name, costs = self._cheapest({name: self._replayed(settings, starts) for name, (_, starts) in sets.items()})
        return list(sets[name][0]), costs

    def _from_others(self, size: int) -> Starts:
        return lambda target: portfolio({name: one for name, one in self._tables.items() if name != target}, size)

    def _cheapest(self, found: Mapping[str, Sequence[Outcome]]) -> tuple[str, dict[str, Any]]:
        chosen = cheapest(found, self._tables, REACHED)
        rows = {
            name: {
                "mean_epochs": round(cost(outcomes, self._tables, REACHED), 1),
                "share_reached": round(share_reached(outcomes, REACHED), 3),
            }
            for name, outcomes in found.items()
        }
        return chosen, {"chosen": chosen, "candidates": rows}

    def _replayed(self, settings: Settings, starts: Starts) -> list[Outcome]:
        """Of each domain under each seed; the table itself was drawn with seed 0."""
        rules = Rules(*settings, slots=self._slots)
        seeds = self._gp_seeds if rules.search.sampler == "gp" else self._seeds
        return [
            replay(table, rules, seed=seed, points=starts(domain))
            for domain, table in self._tables.items()
            for seed in range(1, seeds + 1)
        ]

    def _warm(self, domain: str) -> Sequence[Mapping[str, Any]]:
        return points(self._tables, domain, SearchConfig())


def _cold(domain: str) -> Sequence[Mapping[str, Any]]:
    return ()


def settings_of(name: str) -> Settings:
    """The product's settings with another sampler and scheduler."""
    sampler, scheduler = SEARCHES[name]
    return SearchConfig.model_validate({"sampler": sampler}), SchedulerConfig.model_validate({"kind": scheduler})


def points(tables: Mapping[str, DomainTable], target: str, search: SearchConfig) -> list[Mapping[str, Any]]:
    """What `warm_start: auto` tries first: the paper's defaults, then the best of the other domains in turn."""
    others = [table for domain, table in tables.items() if domain != target]
    ranked = [
        sorted(table.runs.values(), key=lambda run: (-max(run.curve()), run.number))[:BEST_OF_EACH] for table in others
    ]
    best = [ranking[rank].values for rank in range(BEST_OF_EACH) for ranking in ranked if rank < len(ranking)]
    distinct = list({json.dumps(one, sort_keys=True): one for one in best}.values())
    return [_fitting(PAPER), *distinct[: max(1, search.trials // SHARE)]] if distinct else []


def summary(found: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Epochs to `REACHED` and mean regret of each search, and the shipped one beside cold random search."""
    rows: dict[str, Any] = {}
    for name, outcomes in found.items():
        epochs = [outcome.epochs_to(REACHED) for outcome in outcomes]
        rows[name] = {
            "median_epochs_to_99": _finite(statistics.median(epochs)),
            "mean_epochs_to_99_of_those": _finite(statistics.fmean(known)) if (known := _known(epochs)) else None,
            "share_reached": round(share_reached(outcomes, REACHED), 3),
            "median_hours_to_99": _finite(statistics.median(one.seconds_to(REACHED) for one in outcomes) / 3600),
            "mean_regret_after": {
                str(count): round(statistics.fmean(outcome.regret_after(count) for outcome in outcomes), 5)
                for count in (24, 48, 96, 192)
            },
        }
    figures: dict[str, Any] = {"searches": rows}
    ours, plain = (rows.get(name, {}).get("median_epochs_to_99") for name in (" ".join(GOAL), "random cold"))
    figures["ratio_epochs_shipped_to_random"] = round(ours / plain, 3) if ours and plain else None
    return figures


def by_domain(found: Mapping[str, Sequence[Outcome]], tables: Mapping[str, DomainTable]) -> dict[str, Any]:
    """For each domain, how many configurations reach `REACHED` if trained to the end, the median epochs of each search
    until one does, and the shipped search beside cold random search."""
    rows: dict[str, Any] = {}
    for domain, table in tables.items():
        medians = {
            name: statistics.median(one.epochs_to(REACHED) for one in outcomes if one.domain == domain)
            for name, outcomes in found.items()
        }
        ratio = medians[" ".join(GOAL)] / medians["random cold"]
        rows[domain] = {
            "configurations_that_reach": sum(max(run.curve()) >= REACHED * table.best for run in table.runs.values()),
            "median_epochs_to_99": {name: _finite(one) for name, one in medians.items()},
            "ratio_epochs_shipped_to_random": _finite(ratio),
        }
    return rows


def made_up_table(configurations: int = 14, epochs: int = 8) -> dict[str, DomainTable]:
    """Three domains by a formula: one best learning rate, a little apart for each, and rank and weights that matter
    less. Curves rise to their level, slower for small rates."""
    from tabulate_runs import draw

    drawn = draw(configurations)
    tables = {}
    for shift, domain in enumerate(("dots", "lines", "rings")):
        table = DomainTable(domain=domain, settings={"train": {"epochs": epochs}}, zero_shot={"val/box/dice": 0.7})
        for number, values in enumerate(drawn):
            rate = math.log10(values["optim.lr"] / (4e-4 * 1.3**shift))
            width = 0.01 * math.log2(values.get("peft.rank", values.get("peft.width", 8) / 4))
            level = 0.85 - 0.12 * rate**2 + width - 0.02 * (values["info.compression"] > 3)
            pace = 0.4 + 0.2 * rate
            curve = [level - 0.2 * math.exp(-pace * epoch) for epoch in range(1, epochs + 1)]
            rows = [{"val/dice": score, "cost/seconds": 3.0} for score in curve]
            table.runs[number] = Run(number=number, values=values, epochs=rows)
        tables[domain] = table
    return tables


def _fitting(point: Mapping[str, Any]) -> dict[str, Any]:
    """What of a point the default space holds."""
    space = default_space()
    return {path: point[path] for path in in_order(space) if path in point}


def _known(epochs: Sequence[float]) -> list[float]:
    return [one for one in epochs if math.isfinite(one)]


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = Path(__file__).parent / "results"
    parser.add_argument("--table", type=Path, default=results / "table")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--gp-seeds", type=int, default=10, help="of GP, a replay of which takes 50 times as long")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--out", type=Path, help="folder of the result; default: results, or none if quick")
    parser.add_argument("--quick", action="store_true", help="one seed over a small table made by a formula")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds = arguments.gp_seeds = 1
    elif arguments.out is None:
        arguments.out = results
    return arguments


if __name__ == "__main__":
    main()
