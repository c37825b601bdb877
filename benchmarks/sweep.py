"""The same 12 trials by the pattern most people write and by ours: trials per hour, and the best val Dice over seeds.

    python benchmarks/sweep.py [--quick] [--stock-at-once 2]

stock   as Ray's documentation shows it: a function for Tune that starts a TorchTrainer for each trial, MLflow's
        callback for Tune, and training as released (`reference_step.py`), images scored one by one. The function and
        its worker take a CPU each, so on two CPUs one trial runs at a time; with --stock-at-once 2 they share one.
ours    `infosam sweep` with its defaults: slots that stay, what frozen models say remembered, our tracker, and after
        the trials the champion's bundle, scored on test and registered in MLflow. All of that is counted.

Both go through one list of configurations on the same made-up domain (that of `infosam demo`, smaller), in one Ray
that is up before the clock starts; nothing is stopped early. The paired difference is our best val Dice less theirs for
the same seed of the trials. Numbers of the stock side do not depend on how trials are started, so only the first seed
goes through Ray; the others train in two plain processes, which takes a third of the time. Ours goes through Ray for
every seed, before and after theirs; the rate is that of the median time, and all times are told. The last line is one
JSON object of figures. --quick has one seed and two short trials.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from results_file import publish

POINTS: Sequence[Mapping[str, Any]] = [
    {"peft.kind": "lora", "peft.rank": 4, "info.compression": 1.0, "info.distillation": 0.5, "optim.lr": 1e-3},
    {"peft.kind": "lora", "peft.rank": 2, "info.compression": 1.0, "info.distillation": 0.5, "optim.lr": 3e-4},
    {"peft.kind": "lora", "peft.rank": 8, "info.compression": 0.3, "info.distillation": 0.5, "optim.lr": 5e-4},
    {"peft.kind": "lora", "peft.rank": 16, "info.compression": 1.0, "info.distillation": 1.0, "optim.lr": 1e-3},
    {"peft.kind": "lora", "peft.rank": 4, "info.compression": 0.1, "info.distillation": 0.1, "optim.lr": 1e-3},
    {"peft.kind": "lora", "peft.rank": 4, "info.compression": 0.0, "info.distillation": 0.5, "optim.lr": 2e-3},
    {"peft.kind": "adapter", "peft.width": 32, "info.compression": 1.0, "info.distillation": 0.5, "optim.lr": 1e-3},
    {"peft.kind": "adapter", "peft.width": 8, "info.compression": 1.0, "info.distillation": 0.5, "optim.lr": 3e-4},
    {"peft.kind": "adapter", "peft.width": 16, "info.compression": 0.3, "info.distillation": 1.0, "optim.lr": 5e-4},
    {"peft.kind": "adapter", "peft.width": 64, "info.compression": 1.0, "info.distillation": 0.5, "optim.lr": 2e-3},
    {"peft.kind": "adapter", "peft.width": 32, "info.compression": 3.0, "info.distillation": 0.5, "optim.lr": 1e-3},
    {"peft.kind": "adapter", "peft.width": 32, "info.compression": 1.0, "info.distillation": 0.1, "optim.lr": 5e-4},
]
REFERENCE: Mapping[str, Any] = {  # what the reference step is made for
    "prompts": {"box": 1.0, "point": 0.0, "none": 0.0, "box_jitter": 0.0},
    "loss": {"structure": "official"},
}


def main() -> None:
    arguments = parse()
    points, seeds = list(POINTS[: arguments.trials]), list(range(arguments.seeds))
    taken: dict[str, list[float]] = {"stock": [], "ours": []}
    best: dict[str, list[float]] = {"stock": [], "ours": []}
    with tempfile.TemporaryDirectory() as scratch, started_ray():
        data = make_data(Path(scratch), images=arguments.images)
        for seed in seeds:
            began = time.perf_counter()
            best["ours"].append(max(ours(points, seed, data, Path(scratch) / f"ours-{seed}", arguments.epochs)))
            taken["ours"].append(time.perf_counter() - began)
            tell("ours", seed, began, best)
            began = time.perf_counter()
            configs = [run_of(point, seed, arguments.epochs) for point in points]
            if seed == seeds[0]:
                scores = stock(configs, data, Path(scratch) / "stock", arguments.stock_at_once)
                taken["stock"].append(time.perf_counter() - began)
            else:
                with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
                    scores = list(pool.map(best_dice, configs, [str(data)] * len(configs)))
            best["stock"].append(max(scores))
            tell("stock", seed, began, best)
    per_hour = {side: 3600 * len(points) / statistics.median(seconds) for side, seconds in taken.items()}
    figures: dict[str, Any] = {f"trials_per_hour_{side}": round(rate, 1) for side, rate in per_hour.items()}
    figures |= {f"seconds_{side}": [round(one, 1) for one in seconds] for side, seconds in taken.items()}
    figures["ratio_trials_per_hour"] = round(per_hour["ours"] / per_hour["stock"], 2)
    differences = [mine - theirs for mine, theirs in zip(best["ours"], best["stock"], strict=True)]
    figures["mean_difference_dice"] = round(statistics.mean(differences), 5)
    figures |= {f"best_dice_{side}": [round(score, 5) for score in scores] for side, scores in best.items()}
    figures |= {"trials": len(points), "seeds": seeds, "epochs": arguments.epochs}
    if arguments.out:
        publish(arguments.out, "sweep", figures)
    print(json.dumps(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=len(POINTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=24, help="to train on; a third of it for val")
    parser.add_argument("--stock-at-once", type=int, choices=(1, 2), default=1)
    parser.add_argument("--quick", action="store_true", help="two short trials of one seed, to see that it runs")
    parser.add_argument("--out", type=Path, help="folder for a dated file of the figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.seeds, arguments.epochs, arguments.images = 2, 1, 1, 4
    return arguments


@contextlib.contextmanager
def started_ray() -> Iterator[None]:
    """Ray on two CPUs; its workers find the modules beside this file."""
    import ray

    from tune.study import quiet

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}  # the latter: Tune's own tables
    quiet(verbose=False)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=256 * 2**20,
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


def make_data(scratch: Path, *, images: int) -> Path:
    from infosam.data.store import import_dataset
    from infosam.synthetic import write_demo_domain

    pictures = write_demo_domain(scratch / "spores", train=images, val=max(2, images // 3), test=max(2, images // 3))
    import_dataset(pictures, domain="spores", out=scratch / "data", seed=0)
    return scratch / "data"


def run_of(point: Mapping[str, Any], seed: int, epochs: int) -> dict[str, Any]:
    """A RunConfig as JSON."""
    from infosam.config import RunConfig
    from tune.space import configured

    run = RunConfig.model_validate({**REFERENCE, "train": {"epochs": epochs, "seed": seed}})
    return configured(run, point).model_dump(mode="json")


def ours(points: Sequence[Mapping[str, Any]], seed: int, data: Path, folder: Path, epochs: int) -> list[float]:
    """Best val Dice of each trial."""
    from rich.console import Console

    from tune.config import parse_sweep_config
    from tune.home import Home
    from tune.runner import run_sweep

    settings = {
        "data": str(data),
        "run": {**REFERENCE, "train": {"epochs": epochs, "seed": seed}},
        "space": {
            "peft.kind": {"choice": ["lora", "adapter"]},
            "peft.rank": {"int_uniform": [2, 16], "log": True, "when": {"peft.kind": "lora"}},
            "peft.width": {"int_uniform": [8, 64], "log": True, "when": {"peft.kind": "adapter"}},
            "info.compression": {"log_uniform": [0.03, 10.0], "or_zero": True},
            "info.distillation": {"log_uniform": [0.03, 10.0], "or_zero": True},
            "optim.lr": {"log_uniform": [5e-5, 2e-3]},
        },
        "search": {"trials": len(points), "points": [dict(point) for point in points]},
        "scheduler": {"kind": "none"},
        "warm_start": "off",
    }
    config = parse_sweep_config(settings, [], source="benchmark")
    outcome = run_sweep(config, home=Home(folder=folder), console=Console(quiet=True))
    tried = list(outcome.ledger.trials.values())
    wanted = sorted(json.dumps(dict(point), sort_keys=True) for point in points)
    assert sorted(json.dumps(dict(trial.values), sort_keys=True) for trial in tried) == wanted
    assert all(len(trial.epochs) == epochs for trial in tried)
    return [trial.score for trial in tried]


def stock(configs: Sequence[Mapping[str, Any]], data: Path, folder: Path, at_once: int) -> list[float]:
    """Best val Dice of each trial."""
    from ray import train, tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    function_cpus, worker_cpus = (1, 1) if at_once == 1 else (0.01, 0.99)

    def worker(config: dict[str, Any]) -> None:
        from reference_run import epochs

        for values in epochs(config["run"], config["data"]):
            train.report(values)

    def trial(config: dict[str, Any]) -> None:
        TorchTrainer(
            worker,
            train_loop_config=config,
            scaling_config=train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": worker_cpus}),
            run_config=train.RunConfig(
                name=f"trainer-{tune.get_context().get_trial_id()}",
                storage_path=str(folder / "trainers"),
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    folder.mkdir()
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": function_cpus}),
        param_space={"run": tune.grid_search([dict(config) for config in configs]), "data": str(data)},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
        run_config=tune.RunConfig(
            name="stock",
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name="stock")],
        ),
    )
    results = tuner.fit()
    assert not results.errors, results.errors
    return [float(result.metrics_dataframe["val/dice"].max()) for result in results]


def best_dice(run: Mapping[str, Any], data: str) -> float:
    """Of one configuration trained the stock way in this process."""
    from reference_run import epochs

    return max(values["val/dice"] for values in epochs(run, data))


def tell(side: str, seed: int, began: float, best: Mapping[str, Sequence[float]]) -> None:
    taken = time.perf_counter() - began
    load = os.getloadavg()[0]
    print(f"{side:5}  seed {seed}  {taken:.0f} s, load {load:.1f}  best val Dice {best[side][-1]:.4f}", flush=True)


if __name__ == "__main__":
    main()
