"""`infosam cluster plan`: nodes, time and price of a sweep, from the time of one epoch and a table of prices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pydantic import Field, model_validator
from rich.table import Table

from infosam.config import Strict, read_yaml, validate
from infosam.errors import UserError
from tune.config import SweepConfig
from tune.dry_run import expected_epochs

START_S = 600.0
"""A node of a cloud from asking for it to its first trial: machine, image, process. Half of it where machines run."""
OWN = "onprem"


class MachinePrice(Strict):
    """What a machine costs per hour."""

    kind: str
    gpus: int = Field(default=0, ge=0)
    low: float = Field(ge=0)
    high: float = Field(ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> MachinePrice:
        if self.high < self.low:
            raise ValueError(f"high must be at least low, got {self.high} and {self.low}")
        return self


class TargetPrices(Strict):
    """What a target costs."""

    head: MachinePrice
    worker: MachinePrice
    storage_gib_month: float = Field(default=0.0, ge=0)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the sweeps of a file take on so many workers."""

    workers: int
    slots: int  # trials at a time
    trials: int
    work_s: tuple[float, float]  # all trials one after the other: if most are stopped early, if none is
    wall_s: tuple[float, float]
    price: tuple[float, float]  # US dollars, without storage

    @property
    def gpu_hours(self) -> tuple[float, float]:
        """Of GPUs that are there, whether used or not."""
        return self.workers * self.wall_s[0] / 3600, self.workers * self.wall_s[1] / 3600


def read_prices(path: Path | None, target: str) -> TargetPrices:
    """The prices of a target from the user's table, or the shipped one. Raises UserError."""
    source = Path(str(files("cluster") / "prices.yaml")) if path is None else path
    table = read_yaml(source)
    if target not in table:
        raise UserError(f"{source}: has no prices of {target!r}, only of {', '.join(table)}")
    return validate(TargetPrices, table[target], f"{source}: {target}")


def estimate(
    configs: Sequence[SweepConfig], prices: TargetPrices, *, epoch_s: float, workers: int | None, target: str
) -> Estimate:
    """Time and price of the sweeps of a file.

    Args:
        epoch_s: of one epoch of one trial, as `infosam sweep CONFIG --dry-run` measures it on such a machine.
        workers: machines; None: as many as the sweep has slots for.

    Raises UserError if one worker cannot hold a trial's share."""
    resources = configs[0].resources
    trials = sum(config.search.trials for config in configs)
    each = _trials_per_worker(resources.gpus_per_worker * resources.workers_per_trial, prices.worker.gpus)
    wanted = trials if resources.slots == "auto" else min(resources.slots, trials)
    nodes = workers or max(1, math.ceil(wanted / each))
    slots = max(1, min(int(nodes * each), wanted))
    longest = configs[0].run.train.epochs * epoch_s
    work = [
        sum(config.search.trials * epochs(config) * epoch_s + _finals(config) * longest for config in configs)
        for epochs in (_shortest, lambda config: float(config.run.train.epochs))
    ]
    start_s = START_S / 2 if target == OWN else START_S
    walls = [start_s + max(longest, total / slots) for total in work]
    low = walls[0] / 3600 * (prices.head.low + nodes * prices.worker.low)
    high = walls[1] / 3600 * (prices.head.high + nodes * prices.worker.high)
    return Estimate(
        workers=nodes,
        slots=slots,
        trials=trials,
        work_s=(work[0], work[1]),
        wall_s=(walls[0], walls[1]),
        price=(low, high),
    )


def _trials_per_worker(gpus_per_trial: float, gpus: int) -> float:
    """Trials that a worker holds by its GPUs; a share below 1 if a trial needs several workers."""
    if not gpus_per_trial:
        return 1.0
    if not gpus:
        raise UserError("resources.gpus_per_worker asks for GPUs, the worker of this table has none (gpus: 0)")
    share = gpus / gpus_per_trial
    return float(math.floor(share)) if share >= 1 else share


def _shortest(config: SweepConfig) -> float:
    return expected_epochs(config.scheduler, config.run.train.epochs)


def _finals(config: SweepConfig) -> int:
    return config.final.trials if config.final.active else 0


def plan_table(found: Estimate, prices: TargetPrices, target: str) -> Table:
    """The estimate for a terminal."""
    table = Table(title=f"Plan on {target}", title_justify="left", show_header=False)
    hours = [seconds / 3600 for seconds in found.wall_s]
    rows = {
        "nodes": f"1 {prices.head.kind} as head, {found.workers} x {prices.worker.kind}",
        "trials": f"{found.trials}, {found.slots} at a time",
        "time": f"{hours[0]:.1f} to {hours[1]:.1f} h (most trials stopped early, or none)",
        "GPU-hours": f"{found.gpu_hours[0]:.1f} to {found.gpu_hours[1]:.1f}",
        "price": f"{found.price[0]:.2f} to {found.price[1]:.2f} US$ (spot, early stops; on demand, none)",
        "storage": f"{prices.storage_gib_month:.2f} US$ per GiB and month, also while nothing runs",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
