"""Whether a sweep's driver slows down or swells as trials add up, and how fast real slots turn them over.

    python benchmarks/scale.py [--quick] [--trials N] [--slots N] [--out FOLDER]

First 2,000 trials that only count, on 64 slots whose actor is a light stand-in (neither torch nor Ray Train), under
the real searcher, scheduler, tracker and callbacks: processor time and memory of the driver for each of the last 500
trials against the first 500 after one round of the slots. Then 200 trials on 4 real slots. The last line is one JSON
object of figures; --quick runs 40 trials on 2 light slots and none on real ones. --out also writes them into a dated
file there, benchmarks/results for those that are published.

Time is processor time, so that it means the same on a machine that does something else as well.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from rich.console import Console

import tune.study as study
from infosam.config import ModelConfig
from infosam.data.store import import_dataset
from infosam.synthetic import write_demo_domain
from tune.callback import EventCallback
from tune.config import parse_sweep_config
from tune.home import Home
from tune.resources import SETTINGS, environment
from tune.runner import run_sweep
from tune.slot_plan import SlotPlan, result_of
from tune.worker import Message, messages, training_entry

MUSTER = "SCALE_MUSTER"
"""Environment variable: a folder in which slots report, and how many there have to be."""
MUSTER_S = 900.0


class LightSlot(tune.Trainable):
    """What a slot is to Tune, with the training in the actor itself."""

    def setup(self, config: dict[str, Any], plan: SlotPlan) -> None:
        """Loads the training, waits until all slots are there, and begins the first trial.

        Without waiting, trials that take no time would all go to the first slots: Tune gives a trial whose slot is
        still starting to one that is free, and starts over."""
        self._plan = plan
        self._entry = training_entry(plan.worker.training)
        self._materials = self._entry.load_materials(ModelConfig(), Path(), device="cpu", baselines=False)
        folder, wanted = os.environ[MUSTER].split(":")
        Path(folder, str(os.getpid())).touch()
        until = time.monotonic() + MUSTER_S
        while len(os.listdir(folder)) < int(wanted) and time.monotonic() < until:
            time.sleep(0.5)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins another trial."""
        job = self._plan.job(new_config)
        self._messages: Iterator[Message] = messages(job, self._entry, self._materials)
        return True

    def step(self) -> dict[str, Any]:
        """One epoch."""
        return result_of(next(self._messages))

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Sample:
    """The driver when a trial had ended."""

    wall_s: float
    processor_s: float  # of all threads, the tracker's with them
    resident_mib: float


SAMPLES: list[Sample] = []
SHOWN = 100
"""Trials after which progress is told."""


class SampledCallback(EventCallback):
    """The sweep's callback, which also looks at the driver after every trial."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The end of a trial."""
        super().on_trial_complete(iteration, trials, trial, **info)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        SAMPLES.append(Sample(time.perf_counter(), time.process_time(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
        if len(SAMPLES) % SHOWN == 1 and len(SAMPLES) > SHOWN:
            last = _per_trial(SAMPLES[-SHOWN - 1 :])
            figures = ", ".join(f"{name} {value:.4f}" for name, value in last.items())
            print(f"{len(SAMPLES) - 1} trials, the last {SHOWN}: {figures}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute instead of half an hour")
    parser.add_argument("--trials", type=int, help="on light slots")
    parser.add_argument("--slots", type=int, help="light ones")
    parser.add_argument("--out", type=Path, help="folder for a dated file of figures")
    arguments = parser.parse_args()
    trials, slots, window = (40, 2, 10) if arguments.quick else (2000, 64, 500)
    trials, slots = arguments.trials or trials, arguments.slots or slots
    with tempfile.TemporaryDirectory() as scratch, environment(SETTINGS):
        data = Path(scratch) / "data"
        import_dataset(write_demo_domain(Path(scratch) / "spores", train=4, val=2, test=2), domain="spores", out=data)
        muster = Path(scratch) / "muster"
        muster.mkdir()
        os.environ[MUSTER] = f"{muster}:{slots}"
        ray.init(
            address="local", num_cpus=max(slots, 4), include_dashboard=False, log_to_driver=False,
            logging_level="ERROR", object_store_memory=256 * 2**20,
            # More at once than there are cores, and each would take longer to start than Ray waits for it.
            _system_config={"worker_maximum_startup_concurrency": os.cpu_count() or 1},
        )  # fmt: skip
        real = study.Slot
        study.EventCallback, study.Slot = SampledCallback, LightSlot  # type: ignore[attr-defined]
        figures = {"trials": trials, "slots": slots, **_sweep(data, Path(scratch) / "light", trials, slots)}
        figures |= _growth(SAMPLES[slots:], min(window, (trials - slots) // 2))
        if not arguments.quick:
            study.Slot = real  # type: ignore[attr-defined]
            figures |= {f"real_{name}": value for name, value in _sweep(data, Path(scratch) / "real", 200, 4).items()}
        ray.shutdown()
    if arguments.out is not None:
        from results_file import publish  # it brings torch, which has no place in the measurement

        publish(arguments.out, "scale", figures)
    print(json.dumps(figures))


def _sweep(data: Path, folder: Path, trials: int, slots: int) -> dict[str, float]:
    """Runs a sweep and measures its driver as a whole."""
    SAMPLES.clear()
    settings = {
        "data": str(data),
        "run": {"train": {"epochs": 4}},
        "search": {"trials": trials},
        "resources": {"slots": slots},
    }
    started, processor = time.perf_counter(), time.process_time()
    with Path(os.devnull).open("w") as nowhere:
        outcome = run_sweep(
            parse_sweep_config(settings, [], source="benchmark"),
            home=Home(folder=folder),
            console=Console(file=nowhere),
            training="tune.noop",
        )
    assert len(outcome.ledger.trials) == trials
    assert all(trial.end for trial in outcome.ledger.trials.values())
    assert outcome.tracking is not None
    return {
        "wall_s": round(time.perf_counter() - started, 1),
        "wall_s_per_trial": round((SAMPLES[-1].wall_s - SAMPLES[slots].wall_s) / (trials - slots - 1), 4),
        "driver_s_per_trial": round((time.process_time() - processor) / trials, 4),
        "unwritten_records": outcome.tracking.unwritten,
    }


def _growth(samples: list[Sample], window: int) -> dict[str, float]:
    """Processor time and memory per trial in the first and the last `window` trials, and their ratios."""
    first, last = _per_trial(samples[: window + 1]), _per_trial(samples[-window - 1 :])
    figures = {f"first_{name}": value for name, value in first.items()}
    figures |= {f"last_{name}": value for name, value in last.items()}
    # Less than a page per trial is no growth, whatever it is divided by.
    floors = {"driver_s_per_trial": 1e-9, "driver_kib_per_trial": 4.0}
    ratios = {f"ratio_{name}": max(last[name], floor) / max(first[name], floor) for name, floor in floors.items()}
    return {name: round(value, 4) for name, value in (figures | ratios).items()}


def _per_trial(samples: list[Sample]) -> dict[str, float]:
    begin, end, trials = samples[0], samples[-1], len(samples) - 1
    return {
        "wall_s_per_trial": (end.wall_s - begin.wall_s) / trials,
        "driver_s_per_trial": (end.processor_s - begin.processor_s) / trials,
        "driver_kib_per_trial": (end.resident_mib - begin.resident_mib) * 1024 / trials,
    }


if __name__ == "__main__":
    main()
