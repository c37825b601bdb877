"""How many epochs a search needs, replayed over a table of finished runs (`tabulate_runs.py`) with a simulated clock.

    python benchmarks/search_quality.py [--table FOLDER] [--seeds 50] [--choice-seeds 25] [--gp-seeds 5]
                                        [--slots 1 2 4] [--out FOLDER] [--quick]

Searches: random, TPE, TPE + ASHA and GP, with the product's own samplers and schedulers at their shipped settings, each
from several starts (`search_starts.py`): cold, with the points that ship, and warm as a first or a later sweep of the
product would be; nothing of the target domain is known, so the points that ship are found anew without it. A
configuration that a sampler proposes stands for the nearest one in the table that was not tried yet, and the sampler
learns that one. An epoch takes the median seconds of its run, and every epoch counts that any trial trains.

Given for each number of slots and each search, over domains and seeds: epochs until a trial reaches 99 % of the best
validation Dice of the table (median and mean, where a replay that never does counts with all epochs of its table, since
early stopping may end the best), and three ratios to cold random search: of medians, of means, and the geometric mean
of the ratios of each domain's medians; the regret after given numbers of epochs; and the medians of each domain alone.
GP and searches that are not shipped are replayed with the most slots only.

The product's defaults are chosen first (`chosen_defaults.py`), over all slots: sampler, scheduler and ASHA's rungs by
cold and warm replays together, then the points that ship, then whether earlier sweeps are asked. --out gets figures
(dated JSON), regret curves with 10-90 % bands (SVG) and the chosen defaults (YAML). The last line is one JSON object.
--quick replays one seed over a small table made by a formula.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from chosen_defaults import (
    GRACE_EPOCHS,
    REDUCTIONS,
    SHIPPED,
    all_epochs,
    cheapest,
    cost,
    share_reached,
    table_digest,
    where_the_best_lie,
    write_defaults,
)
from regret_figure import draw_regret
from replay import Outcome, Rules, replay
from results_file import publish
from search_starts import (
    Start,
    all_rows,
    best_of,
    cold,
    paper_point,
    rows_apart,
    shipped,
    some_rows,
    told,
    warm,
)
from trial_table import DomainTable, Run, read_table

from tune.config import SchedulerConfig, SearchConfig
from tune.config.sweep import default_space
from tune.study import quiet

REACHED = 0.99
"""Share of the best known score that counts as found."""
SEARCHES: Mapping[str, tuple[str, str]] = {
    "random": ("random", "none"),
    "tpe": ("tpe", "none"),
    "tpe+asha": ("tpe", "asha"),
    "gp": ("gp", "none"),
}
OURS, PLAIN = "tpe+asha", "random cold"
"""The search that ships, and what it is compared with."""
STARTS = {"auto": "later sweep", "off": "shipped points"}
"""With which start a search goes under each `warm_start`, where there are earlier sweeps."""

Settings = tuple[SearchConfig, SchedulerConfig]
Found = Mapping[str, Sequence[Outcome]]
"""Replays of each search from each start."""


def main() -> None:
    arguments = _arguments()
    quiet(verbose=False)
    torch.set_num_threads(1)  # a Gaussian process over 32 points waits for threads more than it computes
    tables = made_up_table() if arguments.quick else read_table(arguments.table)
    if not tables:
        raise SystemExit(f"{arguments.table}: no table there; make one with benchmarks/tabulate_runs.py")
    bench = Bench(tables, slots=arguments.slots, seeds=arguments.choice_seeds, gp_seeds=arguments.gp_seeds)
    chosen, choice = bench.choose()
    bench.seeds = arguments.seeds
    found = bench.searches(chosen)
    most = max(arguments.slots)
    goal = f"{OURS} {STARTS[chosen['warm_start']]}"
    figures: dict[str, Any] = {
        "shipped": goal,
        "searches": {str(slots): summary(one, tables) for slots, one in found.items()},
        "by_domain": {str(slots): by_domain(one, tables) for slots, one in found.items()},
        "domains": len(tables),
        "configurations": {name: len(table.runs) for name, table in tables.items()},
        **{name: getattr(arguments, name) for name in ("seeds", "choice_seeds", "gp_seeds", "slots")},
        "choice": choice,
        "best_configurations": where_the_best_lie(tables, default_space()),
    }
    if arguments.out is not None:
        digest = None if arguments.quick else table_digest(arguments.table)
        figures["chosen"] = write_defaults(arguments.out, table=digest, **chosen)
        publish(arguments.out, "search-quality", figures)
        draw(found[most], arguments.out)
    print(json.dumps(figures))


def draw(found: Found, out: Path) -> None:
    """Regret curves: of all searches cold and warm, and of the shipped search from every start."""
    for name, kept in {
        "cold": [name for name in found if name.endswith(" cold")],
        "warm": [name for name in found if name.endswith(STARTS["auto"])],
        "starts": [PLAIN, *(f"{OURS} {start}" for start in ("cold", "shipped points", "first sweep", "later sweep"))],
    }.items():
        draw_regret({name: found[name] for name in kept}, out / f"search-quality-{name}.svg")


class Bench:
    """Replays over all domains of a table.

    Args:
        slots: numbers of trials at a time; choices are made over all of them.
        seeds: of each replay; the table itself was drawn with seed 0."""

    def __init__(self, tables: Mapping[str, DomainTable], *, slots: Sequence[int], seeds: int, gp_seeds: int) -> None:
        self._tables, self._slots, self.seeds, self._gp_seeds = tables, slots, seeds, gp_seeds

    def searches(self, chosen: Mapping[str, Any]) -> dict[int, dict[str, list[Outcome]]]:
        """For each number of slots: the shipped search, with the rungs and as many points as were `chosen`, from every
        start, and cold random search; with the most slots the other searches too, cold and as a later sweep."""
        size = len(chosen["search"]["points"])
        rungs = SchedulerConfig.model_validate({**chosen["scheduler"], "kind": "asha"})
        settings = {name: settings_of(name) for name in SEARCHES} | {OURS: (settings_of(OURS)[0], rungs)}
        starts: dict[str, Start] = {
            "cold": cold,
            "shipped points": shipped(self._tables, size),
            "first sweep": shipped(self._tables, size, paper=True),
            "later sweep": warm(self._tables, size, some_rows),
            "later sweep, none shared": warm(self._tables, size, rows_apart),
            "later sweep, all rows": warm(self._tables, size, all_rows),
            "told the best": told(self._tables),
        }
        found: dict[int, dict[str, list[Outcome]]] = {}
        for slots in self._slots:
            found[slots] = {}
            for name in SEARCHES if slots == max(self._slots) else ("random", OURS):
                few = ("cold", "later sweep") if slots == max(self._slots) else ("cold",)
                for start in starts if name == OURS else few:
                    found[slots][f"{name} {start}"] = self._replayed(settings[name], starts[start], slots, 1.0)
        return found

    def choose(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings of the sweep, and what the candidates cost."""
        (search, stopping), searches = self._choose_search()
        size, points, points_costs = self._choose_points((search, stopping))
        warm_start, starts = self._choose_start((search, stopping), size)
        kept: dict[str, Any] = {"kind": stopping.kind}
        if stopping.kind == "asha":
            kept |= {"grace_epochs": stopping.grace_epochs, "reduction": stopping.reduction}
        chosen = {
            "search": {"sampler": search.sampler, "points": points},
            "scheduler": kept,
            "warm_start": warm_start,
        }
        assert len(points) == size
        return chosen, {"searches": searches, "points": points_costs, "start": starts}

    def _choose_search(self) -> tuple[Settings, dict[str, Any]]:
        """By cold replays, and as many that start from what was found on other domains, none of it shipped."""
        candidates: dict[str, Settings] = {}
        for grace in GRACE_EPOCHS:
            for reduction in REDUCTIONS:
                rungs = {"kind": "asha", "grace_epochs": grace, "reduction": reduction}
                settings = settings_of("tpe")[0], SchedulerConfig.model_validate(rungs)
                candidates[f"tpe+asha, grace {grace}, reduction {reduction:g}"] = settings
        candidates |= {name: settings_of(name) for name, (_, scheduler) in SEARCHES.items() if scheduler != "asha"}
        found_first = warm(self._tables, 0, some_rows)
        name, costs = self._cheapest(
            {name: [*self._costs(one, cold), *self._costs(one, found_first)] for name, one in candidates.items()}
        )
        return candidates[name], costs

    def _choose_points(self, settings: Settings) -> tuple[int, list[Mapping[str, Any]], dict[str, Any]]:
        """What a search that knows of no other tries first."""
        sets: dict[str, tuple[Sequence[Mapping[str, Any]], Start]] = {
            "none": ([], cold),
            "paper": ([paper_point()], lambda _domain, _seed: [paper_point()]),
        }
        for size in SHIPPED:
            sets[f"best {size}"] = best_of(self._tables, size), shipped(self._tables, size)
        name, costs = self._cheapest({name: self._costs(settings, start) for name, (_, start) in sets.items()})
        points = list(sets[name][0])
        return len(points), points, costs

    def _choose_start(self, settings: Settings, size: int) -> tuple[str, dict[str, Any]]:
        """Whether earlier sweeps are asked, beside the points that ship."""
        starts = {
            "auto": warm(self._tables, size, some_rows),
            "off": shipped(self._tables, size),
        }
        beside = {
            "auto, without sampled trials between": warm(self._tables, size, some_rows, in_a_row=True),
            "auto, earlier sweeps shared no configuration": warm(self._tables, size, rows_apart),
            "auto, earlier sweeps tried every configuration": warm(self._tables, size, all_rows),
            "auto, no earlier sweep": shipped(self._tables, size, paper=True),
        }
        chosen, costs = self._cheapest({name: self._costs(settings, start) for name, start in starts.items()})
        others = {name: self._costs(settings, start) for name, start in beside.items()}
        costs["beside"] = self._rows(others)
        return chosen, costs

    def _costs(self, settings: Settings, start: Start) -> list[Outcome]:
        """Replays up to the goal, with any number of slots; GP with the most only."""
        slots = self._slots if settings[0].sampler != "gp" else [max(self._slots)]
        return [one for count in slots for one in self._replayed(settings, start, count, REACHED)]

    def _cheapest(self, found: Found) -> tuple[str, dict[str, Any]]:
        chosen = cheapest(found, self._tables, REACHED)
        return chosen, {"chosen": chosen, "candidates": self._rows(found)}

    def _rows(self, found: Found) -> dict[str, Any]:
        return {
            name: {
                "mean_epochs": round(cost(outcomes, self._tables, REACHED), 1),
                "share_reached": round(share_reached(outcomes, REACHED), 4),
            }
            for name, outcomes in found.items()
        }

    def _replayed(self, settings: Settings, start: Start, slots: int, until: float) -> list[Outcome]:
        """Of each domain under each seed."""
        rules = Rules(*settings, slots=slots)
        seeds = self._gp_seeds if rules.search.sampler == "gp" else self.seeds
        return [
            replay(table, rules, seed=seed, points=start(domain, seed), until=until)
            for domain, table in self._tables.items()
            for seed in range(1, seeds + 1)
        ]


def settings_of(name: str) -> Settings:
    """The product's settings with another sampler and scheduler."""
    sampler, scheduler = SEARCHES[name]
    return SearchConfig.model_validate({"sampler": sampler}), SchedulerConfig.model_validate({"kind": scheduler})


def summary(found: Found, tables: Mapping[str, DomainTable]) -> dict[str, Any]:
    """Epochs to `REACHED` and mean regret of each search, and its ratios to cold random search."""
    plain = found[PLAIN]
    rows: dict[str, Any] = {}
    for name, outcomes in found.items():
        epochs = _epochs(outcomes, tables)
        rows[name] = {
            "median_epochs_to_99": statistics.median(epochs),
            "mean_epochs_to_99": round(statistics.fmean(epochs), 2),
            "share_reached": round(share_reached(outcomes, REACHED), 4),
            "median_hours_to_99": _finite(statistics.median(one.seconds_to(REACHED) for one in outcomes) / 3600),
            "mean_regret_after": {
                str(count): round(statistics.fmean(outcome.regret_after(count) for outcome in outcomes), 5)
                for count in (24, 48, 96, 192)
            },
            "ratio_to_random": {
                "medians": round(statistics.median(epochs) / statistics.median(_epochs(plain, tables)), 3),
                "means": round(statistics.fmean(epochs) / statistics.fmean(_epochs(plain, tables)), 3),
                "domains": round(statistics.geometric_mean(_ratios(outcomes, plain, tables).values()), 3),
            },
        }
    return rows


def by_domain(found: Found, tables: Mapping[str, DomainTable]) -> dict[str, Any]:
    """For each domain, how many configurations reach `REACHED` if trained to the end, the median epochs of each search
    until one does, and their ratio to those of cold random search."""
    ratios = {name: _ratios(outcomes, found[PLAIN], tables) for name, outcomes in found.items()}
    return {
        domain: {
            "configurations_that_reach": sum(max(run.curve()) >= REACHED * table.best for run in table.runs.values()),
            "median_epochs_to_99": {name: _median(outcomes, tables, domain) for name, outcomes in found.items()},
            "ratio_to_random": {name: round(one[domain], 3) for name, one in ratios.items()},
        }
        for domain, table in tables.items()
    }


def _epochs(outcomes: Sequence[Outcome], tables: Mapping[str, DomainTable]) -> list[float]:
    """To the goal; all epochs of the table where it was never reached."""
    return [min(one.epochs_to(REACHED), all_epochs(tables[one.domain])) for one in outcomes]


def _median(outcomes: Sequence[Outcome], tables: Mapping[str, DomainTable], domain: str) -> float:
    return statistics.median(_epochs([one for one in outcomes if one.domain == domain], tables))


def _ratios(
    outcomes: Sequence[Outcome], plain: Sequence[Outcome], tables: Mapping[str, DomainTable]
) -> dict[str, float]:
    """Of the medians of each domain."""
    return {domain: _median(outcomes, tables, domain) / _median(plain, tables, domain) for domain in tables}


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


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = Path(__file__).parent / "results"
    parser.add_argument("--table", type=Path, default=results / "table")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--choice-seeds", type=int, default=25, help="of the candidates for the defaults")
    parser.add_argument("--gp-seeds", type=int, default=5, help="of GP, a replay of which takes 50 times as long")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--out", type=Path, help="folder of the result; default: results, or none if quick")
    parser.add_argument("--quick", action="store_true", help="one seed over a small table made by a formula")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds = arguments.choice_seeds = arguments.gp_seeds = 1
        arguments.slots = [2]
    elif arguments.out is None:
        arguments.out = results
    return arguments


if __name__ == "__main__":
    main()
