"""The table that searches are judged on: configurations of the default space, trained to full length on five domains.

    python benchmarks/tabulate_runs.py [--data FOLDER] [--work FOLDER] [--out FOLDER] [--configurations 32]
                                       [--hours H] [--domains D ...] [--quick]

Domains lie in --data (default: INFOSAM_TEST_DATA) as folders of images, masks and lists. The sweep is the product's
own, with random draws, no early stopping, warm slots and shared encodings; every configuration has the same number, and
the same values, in all domains. Each finished trial is written at once, to DOMAIN.parquet in --out, and those that are
there are not trained again: stop it when you like (or after --hours) and start it again, on this machine or another.
--work keeps imported images and encodings between runs.

A canvas of 128 px and 12 epochs are there to keep a trial affordable: figures at this size are for comparing searches,
not for quoting scores. The last line gives the median seconds of a trial.
--quick trains two configurations of a made-up domain on a tiny canvas. The last line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from results_file import machine
from rich.console import Console
from shared_sets import DOMAINS, default_folder, imported, made_up
from trial_table import DomainTable, Run, read_domain, write_domain

from tune.config import SearchConfig, parse_sweep_config
from tune.config.sweep import default_space
from tune.encoding_stores import build_stores
from tune.events import Event, TrialEnded
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import SweepPlan, make_plan
from tune.resources import SETTINGS, cluster_nodes, count_slots, environment, ray_session
from tune.samplers import make_sampler
from tune.space import sample
from tune.study import Part, quiet, search
from tune.sweep_facts import source_commit
from tune.worker import training_entry

IMAGE_PX, EPOCHS = 128, 12
QUICK_PX, QUICK_EPOCHS = 64, 2
PRECISION = "bf16"
"""Not `auto`: what a processor has must not decide which rows a table mixes."""
SEED = 0
"""Of the draws of configurations and of every training run."""


def main() -> None:
    arguments = _arguments()
    quiet(verbose=False)
    with tempfile.TemporaryDirectory() as scratch, environment(SETTINGS):
        work = (arguments.work or Path(scratch)).absolute()
        out = (arguments.out or Path(scratch) / "table").absolute()
        quick = arguments.quick
        data = made_up(work, image_px=QUICK_PX) if quick else imported(arguments.data, arguments.domains, work)
        run = {
            "model": {"image_px": QUICK_PX if arguments.quick else IMAGE_PX},
            "train": {
                "epochs": QUICK_EPOCHS if arguments.quick else EPOCHS,
                "seed": SEED,
                "device": "cpu",
                "precision": PRECISION,
            },
        }
        points = draw(2 if arguments.quick else arguments.configurations)
        began = time.monotonic()
        resources = {"slots": 1 if arguments.quick else "auto"}
        jobs = _Jobs(run=run, resources=resources, points=points, work=work, out=out)
        tables = _tabulate(data, jobs, lambda: time.monotonic() - began > arguments.hours * 3600)
    seconds = [sum(run.curve("cost/seconds")) for table in tables for run in table.runs.values()]
    figures = {
        "trials": {table.domain: len(table.runs) for table in tables},
        "wanted": len(points),
        "median_s_per_trial": round(sorted(seconds)[len(seconds) // 2], 1) if seconds else None,
        "best_val_dice": {table.domain: round(table.best, 4) for table in tables if table.runs},
    }
    print(json.dumps(figures))


def draw(count: int) -> list[dict[str, Any]]:
    """The configurations by number, drawn by the product's random sampler; more of them begin with the same ones."""
    study, config = optuna.create_study(), SearchConfig(sampler="random", seed=SEED)
    points = []
    for number in range(count):
        study.sampler = make_sampler(config, number)
        points.append(sample(default_space(), study.ask()))
    return points


class Keeper:
    """Writes each run of a sweep into its domain's file once it has come to its end; a listener.

    Args:
        ledger: told of everything before.
        numbers: of configurations, by `key_of` their values."""

    def __init__(self, table: DomainTable, ledger: Ledger, numbers: Mapping[str, int], out: Path) -> None:
        self._table, self._ledger, self._numbers, self._out = table, ledger, numbers, out
        self._origin = {"seed": SEED, "commit": source_commit(), "machine": machine()}

    def __call__(self, event: Event) -> None:
        """Takes in one event."""
        if not isinstance(event, TrialEnded):
            return
        if event.state == "FAILED":
            print(f"{self._table.domain} {event.trial_id} failed: {event.error}", flush=True)
        if event.reason != "completed":
            return
        trial = self._ledger.trials[event.trial_id]
        epochs = [dict(epoch.values) for epoch in sorted(trial.epochs, key=lambda epoch: epoch.epoch)]
        number = self._numbers[key_of(trial.values)]
        self._table.runs[number] = Run(number=number, values=trial.values, epochs=epochs, **self._origin)  # type: ignore[arg-type]
        write_domain(self._table, self._out)
        print(f"{self._table.domain} configuration {number}: val Dice {trial.score:.4f}", flush=True)


def key_of(values: Mapping[str, Any]) -> str:
    """Equal for equal settings."""
    return json.dumps(values, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class _Jobs:
    """What is trained, and where it is kept."""

    run: Mapping[str, Any]
    resources: Mapping[str, Any]
    points: Sequence[Mapping[str, Any]]
    work: Path
    out: Path


def _tabulate(data: Mapping[str, Path], jobs: _Jobs, stop: Callable[[], bool]) -> list[DomainTable]:
    """Trains what lacks in the tables, all domains on the same slots."""
    console, tables = Console(), []
    numbers = {key_of(point): number for number, point in enumerate(jobs.points)}
    parts: list[Part] = []
    materials: list[tuple[SweepPlan, Any]] = []
    for domain, folder in data.items():
        known = _known(domain, jobs)
        missing = [point for number, point in enumerate(jobs.points) if known is None or number not in known.runs]
        if known is not None and not missing:
            tables.append(known)
            continue
        plan = _plan(domain, folder, missing, jobs)
        entry = training_entry(plan.training)
        loaded = entry.load_materials(plan.config.run.model, plan.config.data, device=plan.device, baselines=True)
        table = known or DomainTable(domain=domain, settings=jobs.run, zero_shot=loaded.zero_shot)
        ledger = Ledger()
        parts.append(Part(plan=plan, ledger=ledger, listeners=[Keeper(table, ledger, numbers, jobs.out)]))
        materials.append((plan, loaded))
        tables.append(table)
    if parts:
        with ray_session():
            stores = [build_stores(plan, loaded, console, warn=console.print) for plan, loaded in materials]
            trials = sum(part.plan.config.search.trials for part in parts)
            slots = count_slots(parts[0].plan.config.resources, cluster_nodes(), trials)
            search(parts, folder=parts[0].plan.folder, slots=slots, stop=stop)
            for made in stores:
                made.release()
    return tables


def _plan(domain: str, folder: Path, points: Sequence[Mapping[str, Any]], jobs: _Jobs) -> SweepPlan:
    settings = {
        "data": str(folder),
        "run": jobs.run,
        "search": {"trials": len(points), "sampler": "random", "points": list(points), "storage": "memory"},
        "scheduler": {"kind": "none"},
        "warm_start": "off",
        "resources": jobs.resources,
    }
    return make_plan(parse_sweep_config(settings, [], source=f"table of {domain}"), Home(folder=jobs.work / "home"))


def _known(domain: str, jobs: _Jobs) -> DomainTable | None:
    """The table so far. Exits where it was made under other settings."""
    file = jobs.out / f"{domain}.parquet"
    if not file.is_file():
        return None
    table = read_domain(file)
    if table.settings != jobs.run:
        raise SystemExit(f"{file}: trained with {table.settings}, now it would be {jobs.run}; move it away")
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_folder())
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS))
    parser.add_argument("--work", type=Path, help="folder for imported images and encodings; default: a temporary one")
    parser.add_argument("--out", type=Path, default=None, help="folder of the table; default: results/table")
    parser.add_argument("--configurations", type=int, default=32)
    parser.add_argument("--hours", type=float, default=1000.0, help="stop after so long; trials under way are lost")
    parser.add_argument("--quick", action="store_true", help="two configurations of a made-up domain")
    arguments = parser.parse_args()
    if arguments.out is None and not arguments.quick:
        arguments.out = Path(__file__).parent / "results" / "table"
    return arguments


if __name__ == "__main__":
    main()
