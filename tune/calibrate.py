"""`infosam calibrate`: how a sweep fits this machine, measured. The batch size belongs to the objective: it stays.

First what makes one trial fit: recomputing the encoder's blocks, then dividing a batch into parts whose information
terms are still those of the whole batch. Then how many trials at a time give the most steps per second."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from infosam.errors import UserError
from tune.config import SweepConfig, sweep_file
from tune.fetched import fetch_all
from tune.resources import GROWS

HEADROOM = 0.9
"""Share of a node's or GPU's memory that may be used; the rest is for others and for what grows."""
MOST_TRIALS_PER_GPU = 4
WORTH_IT = 1.05
"""More trials at a time must give this many times the steps per second: each costs memory and start-up."""

CALIBRATE_HELP = """Find how a sweep fits this machine: memory, micro-batches and trials at a time.

Takes a few steps of the sweep's largest configuration in several layouts, each with as many trials at a time as it
would have, and prints what each costs and the settings to use. The batch size never changes, because the Gram matrices
of the information terms are batch x batch. Of several domains each is measured. Nothing is recorded.

Example: infosam calibrate sweep.yaml --write fitted.yaml"""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How trials share a node, and how each fits into its share."""

    trials: int  # at a time on one node
    cpus: float  # of each worker
    gpus: float  # of each worker
    workers: int = 1  # of each trial on one node
    accumulate: int = 1
    checkpointing: bool = False

    @property
    def processes(self) -> int:
        """Training processes on one node."""
        return self.trials * self.workers

    @property
    def settings(self) -> dict[str, Any]:
        """As overrides of a sweep."""
        found = {
            "run.train.accumulate": self.accumulate,
            "run.train.checkpointing": self.checkpointing,
            "resources.cpus_per_worker": self.cpus,
            "resources.gpus_per_worker": self.gpus,
        }
        # As many trials as a node then holds, and not what was set before; where nodes come with demand, that stays.
        return found if os.environ.get(GROWS) == "1" else {**found, "resources.slots": "auto"}


@dataclass(frozen=True, kw_only=True)
class Trialled:
    """A layout and what was measured of it; `problem` says why it cannot be used."""

    layout: Layout
    steps_per_s: float = 0.0  # of all its trials together
    step_s: float = 0.0
    memory_gib: float = 0.0  # of one worker, the largest
    gpu_memory_gib: float = 0.0  # likewise
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Node:
    """What one node has."""

    cpus: float
    gpus: float
    memory_gib: float
    alike: int = 1  # nodes of the cluster that have as many GPUs and processors


Measure = Callable[[Layout], Trialled]


def calibrate(
    context: typer.Context,
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of a sweep, or `default`.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Changed settings.")] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write the sweep with the settings found to this new file.")
    ] = None,
) -> None:
    from tune.cli import named_configs
    from tune.console import wide_console

    run_calibration(
        named_configs(config, overrides or []),
        console=wide_console(),
        write=write,
        verbose=bool(getattr(context.obj, "verbose", False)),
    )


def run_calibration(
    configs: Sequence[SweepConfig],
    *,
    console: Console,
    write: Path | None = None,
    address: str | None = None,
    verbose: bool = False,
) -> Layout:
    """Measures, prints and returns the layout to use for the sweeps of a file, which differ in their images only.

    Raises UserError for bad input, for a file that exists, and if nothing fits."""
    from tune.resources import SETTINGS, environment, ray_session

    if write is not None and write.exists():
        raise UserError(f"--write {write}: the file exists; name a new one, or remove it")
    config = configs[0]
    fetch_all(config.resources.fetch)
    with environment(SETTINGS), ray_session(address, verbose=verbose):
        node = largest_node()
        found = search_layouts(config, node, _measure_with(configs, node, console))
    console.print(layout_table(found, config))
    best = choose(found, config)
    overrides = " ".join(f"{path}={yaml.safe_dump(value).split()[0]}" for path, value in best.settings.items())
    console.print(f"Use: [bold]{overrides}[/]", soft_wrap=True, highlight=False)
    if write is not None:
        fitted = with_layout(sweep_file(configs), best)
        write.write_text(yaml.safe_dump(fitted, sort_keys=False), encoding="utf-8")
        console.print(f"Sweep with these settings: {write}", soft_wrap=True, highlight=False)
    return best


def search_layouts(config: SweepConfig, node: Node, measure: Measure) -> list[Trialled]:
    """What was measured, in order: one trial that fits, then more of them at a time."""
    tried: list[Trialled] = []
    fitting: Layout | None = None
    for layout in fitting_layouts(config, node):
        tried.append(measure(layout))
        if tried[-1].problem is None:
            fitting = layout
            break
    if fitting is None:
        return tried
    for layout in sharing_layouts(fitting, node):
        tried.append(measure(layout))
        if tried[-1].problem is not None:
            break
    return tried


def fitting_layouts(config: SweepConfig, node: Node) -> Iterator[Layout]:
    """One trial with a GPU for each worker, or with all of the node's processor, in ever less memory and ever more
    time."""
    train = config.run.train
    # The workers of a trial may lie on several nodes; each of these has the same share of them, rounded up.
    workers = math.ceil(config.resources.workers_per_trial / node.alike)
    if workers > node.cpus:
        raise UserError(
            f"resources.workers_per_trial = {config.resources.workers_per_trial}: {node.alike} node(s) with "
            f"{node.cpus:g} CPU do not hold so many; ask for fewer"
        )
    has_gpu = bool(node.gpus) and train.device != "cpu"
    first = Layout(
        trials=1,
        cpus=_cpus(node, workers),
        gpus=_share(math.ceil(workers / node.gpus)) if has_gpu else 0.0,
        workers=workers,
        accumulate=train.accumulate,
        checkpointing=train.checkpointing,
    )
    yield first
    if not first.checkpointing:
        yield replace(first, checkpointing=True)
    for parts in range(first.accumulate + 1, train.batch_size + 1):
        layout = replace(first, accumulate=parts, checkpointing=True)
        if train.batch_size % parts == 0 and _is_allowed(config, layout):
            yield layout


def sharing_layouts(fitting: Layout, node: Node) -> Iterator[Layout]:
    """More and more trials at a time: on each GPU, or on the node's processor."""
    held = fitting.workers
    if fitting.gpus:
        for share in range(1, MOST_TRIALS_PER_GPU + 1):
            trials = int(node.gpus) * share // held
            if trials > 1 and node.cpus >= trials * held:
                yield replace(fitting, trials=trials, cpus=_cpus(node, trials * held), gpus=_share(share))
        return
    for trials in range(2, int(node.cpus) // held + 1):
        if int(node.cpus) % (trials * held) == 0:
            yield replace(fitting, trials=trials, cpus=_cpus(node, trials * held))


def choose(found: Sequence[Trialled], config: SweepConfig) -> Layout:
    """The layout with the most steps per second, fewer trials where more gain next to nothing. Raises UserError."""
    usable = [one for one in found if one.problem is None]
    if not usable:
        raise UserError(
            f"run.train.batch_size = {config.run.train.batch_size}: no layout fits; the last one: {found[-1].problem}. "
            "The batch is part of the objective, so calibrate does not change it: take a smaller run.model, a larger "
            "machine, or decide for another batch size"
        )
    best = usable[0]
    for one in usable[1:]:
        if one.steps_per_s > WORTH_IT * best.steps_per_s:
            best = one
    return best.layout


def with_layout(settings: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """The settings of a sweep with those of the layout put in place."""
    from infosam.config import set_path

    for path, value in layout.settings.items():
        set_path(settings, path, value)
    return settings


def layout_table(found: Sequence[Trialled], config: SweepConfig) -> Table:
    """Everything that was measured."""
    table = Table(title=f"Layouts of one node at batch size {config.run.train.batch_size}", title_justify="left")
    for name in ("trials", "CPU per worker", "GPU per worker", "parts", "checkpointing"):
        table.add_column(name, justify="right")
    for name in ("s per step", "steps per s", "memory GiB per worker", "GPU GiB per worker"):
        table.add_column(name, justify="right")
    table.add_column("problem", overflow="fold")
    for one in found:
        layout = one.layout
        figures = [f"{one.step_s:.3f}", f"{one.steps_per_s:.2f}", f"{one.memory_gib:.2f}", f"{one.gpu_memory_gib:.2f}"]
        table.add_row(
            str(layout.trials),
            f"{layout.cpus:g}",
            f"{layout.gpus:.3g}",
            str(layout.accumulate),
            "yes" if layout.checkpointing else "no",
            *(figures if one.step_s else ["-"] * len(figures)),
            one.problem or "",
        )
    return table


def largest_node() -> Node:
    """The node with the most GPUs, then processors, of the Ray that is connected; slots need not be on others."""
    from tune.resources import cluster_nodes

    nodes = [
        Node(cpus=node.get("CPU", 0.0), gpus=node.get("GPU", 0.0), memory_gib=node.get("memory", 0.0) / 2**30)
        for node in cluster_nodes()
    ]
    largest = max(nodes, key=lambda node: (node.gpus, node.cpus, node.memory_gib))
    return replace(largest, alike=sum((one.gpus, one.cpus) == (largest.gpus, largest.cpus) for one in nodes))


def _measure_with(configs: Sequence[SweepConfig], node: Node, console: Console) -> Measure:
    """Measures on the images of each domain and keeps the largest figures, so that what fits does so for all."""
    from tune.dry_run import largest_point
    from tune.probe import Setting, TooLarge, probe
    from tune.space import configured

    run = configured(configs[0].run, largest_point(configs[0]))

    def measure(layout: Layout) -> Trialled:
        console.print(f"Measuring {layout.processes} x {layout.cpus:g} CPU, {layout.gpus:.3g} GPU", style="dim")
        micro = {"accumulate": layout.accumulate, "checkpointing": layout.checkpointing}
        costs = []
        for config in configs:
            setting = Setting(
                run=run.model_copy(update={"train": run.train.model_copy(update=micro)}),
                data=config.data.absolute(),
                device="cuda" if layout.gpus else "cpu",
                bundle={name: amount for name, amount in (("CPU", layout.cpus), ("GPU", layout.gpus)) if amount},
                processes=config.resources.workers_per_trial,
                fetch=config.resources.fetch,
            )
            found = probe(setting, layout.processes)
            if isinstance(found, TooLarge):
                return Trialled(layout=layout, problem=found.reason)
            costs += [one.cost for one in found]
        memory = max(cost.memory_gib for cost in costs)
        return Trialled(
            layout=layout,
            steps_per_s=sum(1 / cost.step_s for cost in costs) / layout.workers / len(configs),
            step_s=max(cost.step_s for cost in costs),
            memory_gib=memory,
            gpu_memory_gib=max(cost.gpu_memory_gib for cost in costs),
            problem=_memory_problem(memory * layout.processes, node),
        )

    return measure


def _memory_problem(needed_gib: float, node: Node) -> str | None:
    allowed = HEADROOM * node.memory_gib
    if not node.memory_gib or needed_gib <= allowed:
        return None
    return f"{needed_gib:.1f} GiB of main memory, {allowed:.1f} may be used"


def _is_allowed(config: SweepConfig, layout: Layout) -> bool:
    """Whether every configuration of the space can be divided so; some balance over a whole batch."""
    from infosam.config import validate
    from infosam.errors import ConfigError

    try:
        validate(SweepConfig, with_layout(config.model_dump(mode="json"), layout), "sweep")
    except ConfigError:
        return False
    return True


def _cpus(node: Node, workers: int) -> float:
    """Whole processors for each of so many workers on one node, one at least."""
    return float(max(1, int(node.cpus // workers)))


def _share(workers: int) -> float:
    """The part of a GPU for each of so many workers, to the precision that Ray knows."""
    return math.floor(1e4 / workers) / 1e4
