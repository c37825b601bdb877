"""Refuses to put more trials on a machine than its memory can hold even at rest, before the first of them starts.

Only a lower bound: what a trial takes while it trains depends on its configuration, and `infosam sweep --dry-run` and
`infosam calibrate` measure it. On a GPU that trials share, each is held to its share (`tune.worker`)."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Mapping, Sequence

from infosam.errors import UserError
from tune.config import ResourceConfig
from tune.resources import fitting_workers, training_machines

LIBRARIES_GIB = 0.3
"""Least that a process takes that has torch loaded, and no model yet."""


ASK_S = 60.0
"""Longest wait for what machines say of their GPUs; one that says nothing is not checked."""


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


def check_gpu_share(resources: ResourceConfig, gpu_bytes: Mapping[str, int], *, weights_bytes: int) -> None:
    """Raises TooTight for the first machine whose GPUs are too small to be shared by so many: a trial's share would not
    hold the base model alone.

    Args:
        gpu_bytes: memory of the smallest GPU of each machine, by its name; one that is not named is not checked.
        weights_bytes: of the base model's file; each trial has a copy of it in its share."""
    share = resources.gpus_per_worker
    if not 0 < share < 1:
        return
    for machine, there in gpu_bytes.items():
        if share * there < weights_bytes:
            least = weights_bytes / there
            share_again = math.ceil(least * 100) / 100
            cure = f"set resources.gpus_per_worker={share_again:g} or more" if least < 1 else "take a larger GPU"
            raise TooTight(
                f"{machine}: {share:g} of a GPU with {there / 2**30:.1f} GiB is {share * there / 2**30:.1f} GiB, the "
                f"base model alone takes {weights_bytes / 2**30:.1f} GiB; {cure}, since a trial needs room to train "
                "beside it"
            )


def gpu_memory(resources: ResourceConfig) -> dict[str, int]:
    """Bytes of the smallest GPU of each machine of the connected Ray that trials share GPUs on, as far as machines say
    so. Asks nobody where no GPU is shared."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not 0 < resources.gpus_per_worker < 1:
        return {}
    task = ray.remote(num_cpus=0, max_retries=0)(_smallest_gpu_bytes)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(): machine
        for machine, node in training_machines(resources).items()
    }
    told = {}
    for answer in ray.wait(list(asked), num_returns=len(asked), timeout=ASK_S)[0] if asked else ():
        try:
            told[asked[answer]] = ray.get(answer)
        except ray.exceptions.RayError:  # a node that left, say
            continue
    return {machine: found for machine, found in told.items() if found}


def _smallest_gpu_bytes() -> int:
    """Of this machine, 0 if unknown."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S / 2, check=True).stdout.split()
        return min(int(mebibytes) for mebibytes in lines) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):  # no NVIDIA, or a driver that answers "[N/A]"
        return 0
