"""A few steps of training on the resources a trial would get: what a sweep will cost, before it runs.

The measuring happens in actors of their own, so that their memory is that of a trial's process, and a configuration
that does not fit takes nothing else with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infosam.config import RunConfig
from infosam.cost import Cost, measure
from infosam.errors import UserError
from tune.resources import actor_options

PLACE_S = 120.0
"""Longest wait for the resources to be free."""
REPORT_S = 3600.0
"""Longest wait for loading, and for the steps."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one copy found."""

    load_s: float  # imports, weights and data
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class TooLarge:
    """It did not fit into memory."""

    reason: str


class ProbeFailed(RuntimeError):
    """The steps could not be taken, for a reason that is neither the input nor memory."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured, and on what."""

    run: RunConfig
    data: Path
    device: str
    bundle: Mapping[str, float]  # resources of one copy by their Ray names
    processes: int = 1  # that divide a batch
    fetch: Mapping[str, str] = field(default_factory=dict)  # path -> address, see `tune.fetched`

    @property
    def threads(self) -> int:
        """Torch threads of one copy, as of a trial's worker."""
        return max(1, int(self.bundle.get("CPU", 1)))


class Probe:
    """One copy; `ray.remote(Probe)`."""

    def load(self, setting: Setting) -> float:
        """Loads what all trials of a process share; seconds. Raises UserError."""
        started = time.perf_counter()
        import torch

        from infosam.materials import load_materials
        from tune.fetched import fetch_all

        fetch_all(setting.fetch)
        torch.set_num_threads(setting.threads)
        self._materials = load_materials(setting.run.model, setting.data, device=setting.device, baselines=False)
        return time.perf_counter() - started

    def measure(self, setting: Setting) -> Cost | TooLarge:
        """Takes the steps."""
        import torch

        try:
            return measure(setting.run, self._materials, processes=setting.processes)
        except torch.OutOfMemoryError as error:
            return TooLarge(reason=str(error).splitlines()[0])


def probe(setting: Setting, copies: int = 1) -> list[Measured] | TooLarge:
    """`copies` processes on one node that step at the same time, each with its own resources.

    Raises UserError for bad data or weights, and if the resources do not become free; ProbeFailed for anything else."""
    import ray
    from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError
    from ray.util import placement_group, remove_placement_group

    group = placement_group([dict(setting.bundle)] * copies, strategy="STRICT_PACK")
    actors: Sequence[Any] = []
    try:
        if not group.wait(PLACE_S):
            raise UserError(
                f"{copies} x {dict(setting.bundle)} did not become free on one node within {PLACE_S:g} s: something "
                "else runs on this cluster; wait for it, or ask for less (resources.*)"
            )
        actors = [_start(group, index, setting) for index in range(copies)]
        loads = ray.get([actor.load.remote(setting) for actor in actors], timeout=REPORT_S)
        costs = ray.get([actor.measure.remote(setting) for actor in actors], timeout=REPORT_S)
    except (ActorDiedError, OutOfMemoryError) as error:
        return TooLarge(reason=f"the process was ended: {_last_line(error)}")
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise cause from None
        raise ProbeFailed(_last_line(error)) from None
    finally:
        for actor in actors:
            ray.kill(actor)
        remove_placement_group(group)
    refused = next((cost for cost in costs if isinstance(cost, TooLarge)), None)
    return refused or [Measured(load_s=load_s, cost=cost) for load_s, cost in zip(loads, costs, strict=True)]


def _start(group: Any, index: int, setting: Setting) -> Any:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    actor: Any = ray.remote(Probe)
    return actor.options(
        **actor_options(setting.bundle),
        max_restarts=0,
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
    ).remote()


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else repr(error)
