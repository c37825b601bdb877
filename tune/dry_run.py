"""`infosam sweep --dry-run`: all is checked, one worker takes steps on each domain, and the plan is printed.

Nothing is kept."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infosam.config import RunConfig
from infosam.errors import UserError
from infosam.sam.weights import weights_path
from tune.config import SchedulerConfig, SweepConfig
from tune.data_check import check_data
from tune.fetched import fetch_all
from tune.footprint import Footprint
from tune.group import draft_group
from tune.home import Home
from tune.plan import SweepPlan, free_name
from tune.position import without_password
from tune.preflight import check_cluster
from tune.probe import Measured, Setting, TooLarge, probe
from tune.resources import SETTINGS, environment, ray_session
from tune.space import Point, configured, corner_points
from tune.sweep_facts import rungs
from tune.terminal import describe_point
from tune.tracking import CLIENT_SETTINGS

INFO_WEIGHTS = ("info.compression", "info.distillation")


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a sweep would do and take, from a measurement of its largest configuration alone on one worker."""

    config: SweepConfig
    tracking_uri: str
    point: Point  # the configuration that was measured
    slots: int
    measured: Measured

    @property
    def epochs(self) -> float:
        """Expected epochs of a trial of the search."""
        return expected_epochs(self.config.scheduler, self.config.run.train.epochs)

    @property
    def full_trial_s(self) -> float:
        """A trial that is never stopped."""
        cost = self.measured.cost
        first = cost.steps * max(0.0, cost.first_step_s - cost.step_s)
        return self.config.run.train.epochs * cost.epoch_s + first

    @property
    def work_s(self) -> float:
        """What all trials of the search take together, one after the other."""
        share = self.epochs / self.config.run.train.epochs
        return self.config.search.trials * share * self.full_trial_s

    @property
    def search_s(self) -> float:
        """The search, from the start of its workers to the end of its last trial, with all slots for itself."""
        return joint_search_s([self])

    @property
    def finals_s(self) -> float:
        """Repeats and twins, which run to their end; twins wait for the repeats."""
        final = self.config.final
        waves = [final.trials - final.seeds * final.twin, final.seeds * final.twin]
        return sum(math.ceil(count / self.slots) for count in waves) * self.full_trial_s if final.active else 0.0

    @property
    def gpu_hours(self) -> float:
        """GPUs reserved by trials times hours."""
        resources = self.config.resources
        gpus = resources.gpus_per_worker * resources.workers_per_trial
        return gpus * (self.work_s + self.config.final.active * self.config.final.trials * self.full_trial_s) / 3600


def dry_run(
    configs: Sequence[SweepConfig], *, home: Home, console: Console, address: str | None = None, verbose: bool = False
) -> list[DryRun]:
    """Checks the sweeps of a file, takes steps of the largest configuration on the images of each, on one worker, and
    prints what the sweeps will take.

    Raises UserError for anything a sweep would be refused for, ProbeFailed where the steps could not be taken."""
    for config in configs:
        fetch_all(config.resources.fetch)
    plans = draft_group(configs, home)
    for plan in plans:
        check_data(plan.config.data, plan.config.run.model, home, console, remember=False)
    config, uri = configs[0], plans[0].tracking_uri
    weights_path(config.run.model)
    _check_writable(plans[0].folder.parent)
    for plan in plans:
        for note in plan.notes:
            console.print(f"{plan.domain}: {note}" if len(plans) > 1 else note, soft_wrap=True, highlight=False)
    with environment(SETTINGS | CLIENT_SETTINGS):
        check_answers(uri)
        point = largest_point(config)
        with ray_session(address, verbose=verbose):
            slots = check_cluster(
                plans,
                [(free_name(plan.sweep_id, plan.folder.parent), plan.config.search, None) for plan in plans],
                folders=[plan.folder for plan in plans],
                trials=sum(plan.config.search.trials for plan in plans),
                warn=lambda text: console.print(f"[yellow]{text}[/]", soft_wrap=True, highlight=False),
            )
            results = [_measured(plan, point, slots, console) for plan in plans]
    for result in results:
        console.print(plan_table(result))
    if len(results) > 1:
        console.print(total_table(results))
    for line in remarks(results):
        console.print(line, soft_wrap=True, highlight=False)
    return results


def _measured(plan: SweepPlan, point: Point, slots: int, console: Console) -> DryRun:
    console.print(f"Measuring the largest configuration on one worker: {plan.domain}", style="dim")
    found = probe(setting_of(plan, configured(plan.config.run, point)))
    if isinstance(found, TooLarge):
        raise UserError(
            f"run: a step of the largest configuration ({describe_point(point)}) does not fit into what one worker "
            f"gets (resources.*_per_worker): {found.reason}; `infosam calibrate` finds what fits"
        )
    return DryRun(config=plan.config, tracking_uri=plan.tracking_uri, point=point, slots=slots, measured=found[0])


def joint_search_s(results: Sequence[DryRun]) -> float:
    """The search of sweeps that share their slots, from the start of the workers to the end of the last trial."""
    work_s = sum(result.work_s for result in results) / results[0].slots
    return max(result.measured.load_s for result in results) + max(work_s, *(one.full_trial_s for one in results))


def setting_of(plan: SweepPlan, run: RunConfig) -> Setting:
    """What one worker of the sweep would measure with `run`."""
    resources = plan.config.resources
    return Setting(
        run=run,
        data=plan.config.data,
        device=plan.device,
        bundle=resources.bundle,
        processes=resources.workers_per_trial,
        fetch=resources.fetch,
    )


def largest_point(config: SweepConfig) -> Point:
    """Of the corners of the space that keep the constraints the one that trains most, with information terms on."""
    footprint = Footprint(config.run, config.constraints)
    corners = [corner for corner in corner_points(config.space) if footprint.allows(corner)]
    largest = max(corners, key=lambda corner: footprint.sizes(corner)["trained_mb"], default={})
    weights = {path: config.space[path].corners()[-1] for path in INFO_WEIGHTS if path in largest}
    return {**largest, **weights}


def expected_epochs(scheduler: SchedulerConfig, epochs: int) -> float:
    """Mean epochs of a trial where one in `reduction` goes on at each rung of asha; all of them for other schedulers,
    whose share is not known beforehand."""
    if scheduler.kind != "asha":
        return float(epochs)
    steps = rungs(scheduler, epochs)
    lengths = [after - before for before, after in zip((0, *steps), steps, strict=False)]
    return sum(length / scheduler.reduction**number for number, length in enumerate(lengths))


def check_answers(uri: str) -> None:
    """Raises UserError unless the tracking store at `uri` answers. Makes no embedded one."""
    if uri.startswith("sqlite:///"):
        _check_writable(Path(uri.removeprefix("sqlite:///")).parent)
        return
    from tune.tracking import new_client

    try:
        new_client(uri).search_experiments(max_results=1)
    except UserError:
        raise
    except Exception as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f"tracking.uri: no answer from {without_password(uri)}: {why}; start the server, or unset tracking.uri and "
            "MLFLOW_TRACKING_URI to record in the results folder"
        ) from error


def plan_table(result: DryRun) -> Table:
    """The plan."""
    config, cost = result.config, result.measured.cost
    table = Table(title=f"Plan of a sweep over {config.domain}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how much", overflow="fold")
    rows: Mapping[str, str] = {
        "trials": f"{config.search.trials} of {config.search.sampler}, {config.scheduler.kind} scheduler"
        + (f"; then {config.final.trials} repeats and twins" if config.final.active else ""),
        "at a time": f"{result.slots}, each {_resources(config)}",
        "epochs of a trial": f"{result.epochs:.1f} of {config.run.train.epochs} expected, {cost.steps} steps and "
        f"{cost.val_images} validation images each",
        "measured": describe_point(result.point) or "the fixed configuration",
        "a step": f"{cost.step_s:.3f} s ({config.run.train.batch_size} images), the first {cost.first_step_s:.3f} s; "
        f"validation {cost.image_s:.3f} s per image",
        "memory of a trial": _memory(result),
        "whole trial": _duration(result.full_trial_s),
        "estimated time": _duration(result.search_s + result.finals_s)
        + (f", of it {_duration(result.finals_s)} after the search" if result.finals_s else ""),
        "GPU-hours": f"{result.gpu_hours:.2f}",
        "records": without_password(result.tracking_uri),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def total_table(results: Sequence[DryRun]) -> Table:
    """What the sweeps of several domains take together, on the slots that they share."""
    domains = ", ".join(str(result.config.domain) for result in results)
    table = Table(title=f"All together: {domains}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how much", overflow="fold")
    finals_s = sum(result.finals_s for result in results)
    trials = sum(result.config.search.trials for result in results)
    finals = sum(result.config.final.trials for result in results if result.config.final.active)
    table.add_row("trials", f"{trials}" + (f"; then {finals} repeats and twins" if finals else ""))
    table.add_row("at a time", f"{results[0].slots}, of the domains in turn")
    table.add_row("estimated time", _duration(joint_search_s(results) + finals_s))
    table.add_row("GPU-hours", f"{sum(result.gpu_hours for result in results):.2f}")
    return table


def remarks(results: Sequence[DryRun]) -> list[str]:
    """What the plan does not say by itself."""
    lines = []
    hours = joint_search_s(results) / 3600  # of each: all of them run all the time
    for result in results:
        budget, whose = result.config.budget, f" of {result.config.domain}" if len(results) > 1 else ""
        for name, bound, needed in (("hours", budget.hours, hours), ("gpu_hours", budget.gpu_hours, result.gpu_hours)):
            if bound is not None and bound < needed:
                lines.append(f"[yellow]budget.{name} = {bound:g} ends the search{whose} before all trials[/]")
    result = results[0]
    stopping, epochs = result.config.scheduler, result.config.run.train.epochs
    if stopping.kind != "none" and stopping.grace_epochs >= epochs:
        lines.append(
            f"No trial is stopped early: it has {epochs} epochs, scheduler.grace_epochs is {stopping.grace_epochs}."
        )
    if stopping.kind == "median" or stopping.plateau_epochs:
        lines.append("Trials may be stopped earlier than that, so the time is an upper bound.")
    lines.append(
        "Measured with one trial alone; trials that share a processor, GPU or disk are slower. Nothing was recorded."
    )
    return lines


def _check_writable(folder: Path) -> None:
    """Raises UserError unless `folder` can be written to, or made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written to ({existing}); set storage or INFOSAM_HOME")


def _resources(config: SweepConfig) -> str:
    resources = config.resources
    text = f"{resources.cpus_per_worker:g} CPU"
    if resources.gpus_per_worker:
        text += f" and {resources.gpus_per_worker:g} GPU"
    return f"{resources.workers_per_trial} workers of {text}" if resources.workers_per_trial > 1 else text


def _memory(result: DryRun) -> str:
    """Of all workers of a trial together, and of each."""
    workers, cost = result.config.resources.workers_per_trial, result.measured.cost

    def total(factor: int) -> str:
        gpu = f", GPU {factor * cost.gpu_memory_gib:.2f} GiB" if cost.gpu_memory_gib else ""
        return f"{factor * cost.memory_gib:.2f} GiB{gpu}"

    return f"{total(workers)}; each of its {workers} workers {total(1)}" if workers > 1 else total(1)


def _duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
