"""Refuses to put more trials on a machine than its memory can hold even at rest, before the first of them starts.

Only a lower bound: what a trial takes while it trains depends on its configuration, and `infosam sweep --dry-run` and
`infosam calibrate` measure it. On a GPU that trials share, each is held to its share (`tune.worker`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infosam.errors import UserError
from tune.config import ResourceConfig
from tune.resources import fitting_workers

LIBRARIES_GIB = 0.3
"""Least that a process takes that has torch loaded, and no model yet."""


class TooTight(UserError):
    """More trials at a time than the memory of a machine holds."""


def check_packing(
    resources: ResourceConfig, nodes: Sequence[Mapping[str, float]], *, slots: int, weights_bytes: int
) -> None:
    """Raises TooTight for the first machine that cannot hold its workers.

    Args:
        nodes: resources of every live node by Ray's names, memory in bytes; one that tells no memory is not checked.
        slots: trials at a time.
        weights_bytes: of the base model's file, of which each worker holds a copy at least."""
    least_gib = max(LIBRARIES_GIB + weights_bytes / 2**30, resources.memory_gib_per_worker)
    for node in nodes:
        workers = min(fitting_workers(resources.bundle, node), slots * resources.workers_per_trial)
        there_gib = node.get("memory", 0.0) / 2**30
        if there_gib and workers * least_gib > there_gib:
            fit = int(there_gib / least_gib)
            raise TooTight(
                f"{workers} training processes at a time on a machine with {there_gib:.1f} GiB for them take "
                f"{workers * least_gib:.1f} GiB before they train anything; set resources.slots={max(fit, 1)}, or "
                f"resources.memory_gib_per_worker={least_gib:.1f} or more, so that Ray puts no more of them there"
            )
