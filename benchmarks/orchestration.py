"""Time lost per trial by our slots, by one TorchTrainer per trial (the stock pattern) and by a plain Tune function.

    python benchmarks/orchestration.py [--quick] [--out FOLDER]

Every side runs the same training that only counts, one trial at a time on a fresh search in the same Ray, sides in
turn. Lost is what `fit` took less the training itself, divided by the trials: starting processes for the first trial
is counted, and shared by all trials where processes are reused. The last line is one JSON object of figures;
`ratio_lost_per_trial` is ours over the stock pattern. --quick runs each side once, with few trials. --out also writes
them into a dated file there, benchmarks/results for those that are published.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from infosam.config import RunConfig
from infosam.data.store import import_dataset
from infosam.synthetic import write_demo_domain
from tune.config import parse_sweep_config
from tune.events import OBJECTIVE
from tune.home import Home
from tune.ledger import Ledger
from tune.noop import NoopEpoch, NoopMaterials
from tune.noop import train as count
from tune.plan import make_plan
from tune.resources import SETTINGS, environment
from tune.study import Part, quiet, search

EPOCHS = 4
Side = Callable[[Path, int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round with few trials")
    parser.add_argument("--out", type=Path, help="folder for a dated file of figures")
    arguments = parser.parse_args()
    trials = {"ours": 4, "plain": 2, "stock": 1} if arguments.quick else {"ours": 16, "plain": 16, "stock": 4}
    sides: dict[str, Side] = {"ours": _ours, "plain": _plain, "stock": _stock}
    lost: dict[str, list[float]] = {name: [] for name in sides}
    training_s = _training_s()
    quiet(verbose=False)
    with tempfile.TemporaryDirectory() as scratch, environment(SETTINGS):
        data = Path(scratch) / "data"
        import_dataset(write_demo_domain(Path(scratch) / "spores", train=4, val=2, test=2), domain="spores", out=data)
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            object_store_memory=256 * 2**20,
        )  # fmt: skip
        for _ in range(1 if arguments.quick else 2):
            for name, side in sides.items():
                began = time.perf_counter()
                side(Path(scratch), trials[name])
                lost[name].append((time.perf_counter() - began) / trials[name] - training_s)
        ray.shutdown()
    figures: dict[str, Any] = {f"lost_s_per_trial_{name}": round(statistics.mean(lost[name]), 3) for name in sides}
    figures |= {f"trials_{name}": number for name, number in trials.items()}
    figures["ratio_lost_per_trial"] = round(statistics.mean(lost["ours"]) / statistics.mean(lost["stock"]), 4)
    figures["ratio_lost_per_trial_plain"] = round(statistics.mean(lost["ours"]) / statistics.mean(lost["plain"]), 4)
    if arguments.out is not None:
        from results_file import publish  # it brings torch, which has no place in the measurement

        publish(arguments.out, "orchestration", figures)
    print(json.dumps(figures))


def _epochs() -> Iterator[NoopEpoch]:
    config = RunConfig.model_validate({"train": {"epochs": EPOCHS}})
    return count(config, NoopMaterials())


def _training_s() -> float:
    began = time.perf_counter()
    for _ in _epochs():
        pass
    return time.perf_counter() - began


def _ours(scratch: Path, trials: int) -> None:
    settings = {
        "data": str(scratch / "data"),
        "run": {"train": {"epochs": EPOCHS}},
        "search": {"trials": trials, "sampler": "random"},
        "scheduler": {"kind": "none"},
    }
    home = Home(folder=scratch / "home")
    plan = make_plan(parse_sweep_config(settings, [], source="benchmark"), home, "tune.noop")
    ledger = Ledger()
    search([Part(plan=plan, ledger=ledger)], folder=plan.folder, slots=1)
    assert [trial.end.reason for trial in ledger.trials.values() if trial.end] == ["completed"] * trials


def _plain(scratch: Path, trials: int) -> None:
    def trial(config: dict[str, Any]) -> None:
        for epoch in _epochs():
            tune.report(epoch.values)

    _fit(tune.with_resources(trial, {"cpu": 1}), scratch, trials)


def _stock(scratch: Path, trials: int) -> None:
    """As the documentation of Ray shows it: a function for Tune that starts a trainer for each trial."""

    def worker(config: dict[str, Any]) -> None:
        for epoch in _epochs():
            train.report(epoch.values)

    def trial(config: dict[str, Any]) -> None:
        TorchTrainer(
            worker,
            train_loop_config=config,
            scaling_config=train.ScalingConfig(num_workers=1),
            run_config=train.RunConfig(
                name=f"trainer-{tune.get_context().get_trial_id()}",
                storage_path=str(scratch / "trainers"),
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    _fit(tune.with_resources(trial, {"cpu": 1}), scratch, trials)


def _fit(trainable: Any, scratch: Path, trials: int) -> None:
    tuner = tune.Tuner(
        trainable,
        param_space={"lr": tune.loguniform(1e-4, 1e-2)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(name=f"at-{time.time_ns()}", storage_path=str(scratch / "tune"), verbose=0),
    )
    results = tuner.fit()
    assert not results.errors
    assert all(OBJECTIVE in (result.metrics or {}) for result in results)


if __name__ == "__main__":
    main()
