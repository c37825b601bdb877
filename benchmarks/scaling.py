"""How much more work several slots, and several workers per trial, do than one: epochs per hour and efficiency.

    python benchmarks/scaling.py [--quick]

Every row searches the same configuration of vit_nano on a made-up domain of its own Ray session, workers with one core
each. Work is counted from the moment when every slot has reported an epoch until the first one has no trial left, so
starting processes is left out (`orchestration.py` and `sweep.py` count it). Efficiency is work per hour over that of
one worker in one slot, divided by workers times slots. More processes than cores cannot scale: the rows show what they
cost, and `cores` says where that begins. The last line is one JSON object of figures.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
from results_file import publish

from infosam.data.store import import_dataset
from infosam.synthetic import write_demo_domain
from tune.config import parse_sweep_config
from tune.home import Home
from tune.ledger import Ledger
from tune.plan import make_plan
from tune.resources import SETTINGS, environment
from tune.study import Part, quiet, search

SEED = 0
ROWS = ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2))  # workers of a trial, slots
TRIALS_PER_SLOT = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4, help="of a trial")
    parser.add_argument("--images", type=int, default=16, help="to train on, in batches of 4")
    parser.add_argument("--quick", action="store_true", help="two rows of short trials, to see that it runs")
    parser.add_argument("--out", type=Path, help="folder for a dated file of the figures")
    arguments = parser.parse_args()
    rows = ROWS[:2] if arguments.quick else ROWS
    if arguments.quick:
        arguments.epochs, arguments.images = 2, 4
    cores = os.cpu_count() or 1
    print(f"{cores} cores, {TRIALS_PER_SLOT} trials of {arguments.epochs} epochs per slot, seed {SEED}")
    quiet(verbose=False)
    rates: dict[tuple[int, int], float] = {}
    with tempfile.TemporaryDirectory() as scratch, environment(SETTINGS):
        pictures = write_demo_domain(Path(scratch) / "spores", seed=SEED, train=arguments.images, val=4, test=1)
        import_dataset(pictures, domain="spores", out=Path(scratch) / "data", seed=SEED)
        for row in rows:
            rates[row] = epochs_per_hour(row, arguments, Path(scratch))
            load = os.getloadavg()[0]
            print(f"{row[0]} workers, {row[1]} slots: {rates[row]:.0f} epochs per hour, load {load:.1f}", flush=True)
    figures: dict[str, Any] = {"cores": cores}
    for (workers, slots), rate in rates.items():
        name = f"{workers}_workers_{slots}_slots"
        figures[f"epochs_per_hour_{name}"] = round(rate, 1)
        figures[f"efficiency_{name}"] = round(rate / rates[1, 1] / (workers * slots), 3)
    if arguments.out:
        publish(arguments.out, "scaling", figures)
    print(json.dumps(figures))


def epochs_per_hour(row: tuple[int, int], arguments: argparse.Namespace, scratch: Path) -> float:
    """Of one row, in a Ray that believes in a core for each process."""
    workers, slots = row
    settings = {
        "data": str(scratch / "data"),
        "run": {"train": {"epochs": arguments.epochs, "seed": SEED}},
        "space": {"optim.lr": {"log_uniform": [1e-4, 1e-3]}},
        "search": {"trials": slots * TRIALS_PER_SLOT, "sampler": "random", "seed": SEED},
        "scheduler": {"kind": "none"},
        "resources": {"slots": slots, "workers_per_trial": workers},
        "warm_start": "off",
    }
    plan = make_plan(parse_sweep_config(settings, [], source="benchmark"), Home(folder=scratch / "home"))
    ledger = Ledger()
    ray.init(
        address="local", num_cpus=workers * slots, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=256 * 2**20,
    )  # fmt: skip
    try:
        search([Part(plan=plan, ledger=ledger)], folder=plan.folder, slots=slots)
    finally:
        ray.shutdown()
    return rate_of(ledger, slots)


def rate_of(ledger: Ledger, slots: int) -> float:
    """Epochs per hour while all slots were at work."""
    trials = list(ledger.trials.values())
    assert [trial.end.reason for trial in trials if trial.end] == ["completed"] * len(trials)
    reports = [epoch.at for trial in trials for epoch in trial.epochs]
    began = sorted(min(epoch.at for epoch in trial.epochs) for trial in trials)[slots - 1]
    over = sorted(trial.end.at for trial in trials if trial.end)[len(trials) - slots]
    return 3600 * sum(began < at <= over for at in reports) / (over - began)


if __name__ == "__main__":
    main()
