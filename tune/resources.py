"""Ray for a sweep: connect or start it, and what the cluster can hold."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from infosam.errors import UserError
from tune.config import ResourceConfig

LOCAL_OBJECT_STORE_BYTES = 256 * 2**20
"""A sweep sends only messages through the object store."""

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own tables
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # csv, json and tensorboard files of every trial
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial has no metric, and that is no error of the sweep
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is heard by `tune.interrupt`
    # Tune's own state of all trials grows with them and is written again and again; a sweep goes on from its log.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",  # of each map over the images; what fails is told by whoever asked for it
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in a configuration are relative to where the user stands
}

GROWS = "INFOSAM_CLUSTER_GROWS"
"""Environment variable, 1 on the head of a cluster whose nodes come when trials wait for them."""


LOOK_S = 5.0
"""How often nodes are counted while a sweep runs."""


class ClusterTooSmall(UserError):
    """The cluster can never hold the workers of one trial."""


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the time of a command; what the user has set wins."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def ray_session(address: str | None = None, *, verbose: bool = False) -> Iterator[None]:
    """A connection to Ray: the one that is open, the cluster at `address` or RAY_ADDRESS, or a new one on this machine.

    `address` `nearest` is the cluster this machine belongs to, or a new one. Only what was started here is stopped."""
    import ray

    if ray.is_initialized():
        yield
        return
    level = logging.INFO if verbose else logging.ERROR
    _connect(address or os.environ.get("RAY_ADDRESS") or "local", {"logging_level": level, "log_to_driver": verbose})
    logging.getLogger("ray").setLevel(level)
    try:
        yield
    finally:
        with _garbage_kept():
            ray.shutdown()


@contextlib.contextmanager
def _garbage_kept() -> Iterator[None]:
    """No reference to one of Ray's objects is collected here: Ray ends the whole process, with exit code 1, when any
    thread drops one between the end of its core and that of its session, and another thread's allocation is enough to
    set off the collector. What there is by now is collected before."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _connect(address: str, options: Mapping[str, Any]) -> None:
    import ray

    if address == "nearest":
        with contextlib.suppress(ConnectionError):
            ray.init(address="auto", **options)
            return
        address = "local"
    if address == "local":
        options = {**options, "include_dashboard": False, "object_store_memory": LOCAL_OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, **options)
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster at {address} (RAY_ADDRESS or --address): {error}; unset it to use this machine"
        ) from error


def cluster_nodes() -> list[dict[str, float]]:
    """The resources of every live node, by Ray's names."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def actor_options(bundle: Mapping[str, float]) -> dict[str, Any]:
    """What an actor that occupies these resources is started with; what is not named, it does not take."""
    return {
        "num_cpus": bundle.get("CPU", 0),
        "num_gpus": bundle.get("GPU", 0),
        "memory": bundle.get("memory") or None,
    }


def training_machines(resources: ResourceConfig) -> dict[str, str]:
    """Id of one live node of each machine that can hold a worker, by the machine's name, in the order of the names."""
    import ray

    nodes = {
        node["NodeManagerHostname"]: node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and fitting_workers(resources.bundle, node["Resources"])
    }
    return dict(sorted(nodes.items()))


def count_slots(resources: ResourceConfig, nodes: list[dict[str, float]], trials: int) -> int:
    """Trials to run at a time. Raises ClusterTooSmall where Ray would wait for ever.

    A worker lies on one node; the workers of a trial may lie on several. Where nodes come with demand (GROWS), the user
    says how many trials that shall be, and Ray waits for the nodes."""
    fitting = sum(fitting_workers(resources.bundle, node) for node in nodes)
    workers = resources.workers_per_trial
    grows = os.environ.get(GROWS) == "1"
    if fitting < workers and grows and resources.slots == "auto":
        raise ClusterTooSmall(
            "resources.slots: nodes of this cluster come when trials wait for them, so that there is nothing to count "
            "for `auto`; say how many trials to run at a time, such as resources.slots=8"
        )
    if fitting < workers and not grows:
        what = "no node can hold one worker" if not fitting else f"only {fitting} of a trial's {workers} workers fit"
        raise ClusterTooSmall(
            f"{what}: asked for {_describe(resources.bundle)} each (resources.*_per_worker, workers_per_trial), the "
            "cluster has " + "; ".join(f"a node with {_describe(node)}" for node in nodes)
        )
    wanted = fitting // workers if resources.slots == "auto" else resources.slots
    return min(wanted, trials)


class Slots:
    """How many trials run at a time while nodes come and go; asked often, it looks seldom.

    Args:
        first: what `count_slots` said; it stays so where the user gave a number.
        nodes: resources of every live node.
        clock: seconds.
    """

    def __init__(
        self,
        resources: ResourceConfig,
        first: int,
        *,
        nodes: Callable[[], list[dict[str, float]]] = cluster_nodes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resources = resources
        self._slots = first
        self._nodes, self._clock = nodes, clock
        self._looked_at = clock()

    def __call__(self) -> int:
        """At least one, so that a sweep that lost its nodes waits for others."""
        if self._resources.slots == "auto" and self._clock() - self._looked_at >= LOOK_S:
            self._looked_at = self._clock()
            fitting = sum(fitting_workers(self._resources.bundle, node) for node in self._nodes())
            self._slots = max(1, fitting // self._resources.workers_per_trial)
        return self._slots


def fitting_workers(bundle: Mapping[str, float], node: Mapping[str, float]) -> int:
    """How many workers with these resources a node can hold, both by Ray's names."""
    return min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in bundle.items())


def _describe(amounts: Mapping[str, float]) -> str:
    shown = {name: amounts.get(name, 0.0) for name in ("CPU", "GPU")}
    text = ", ".join(f"{amount:g} {name}" for name, amount in shown.items())
    memory = amounts.get("memory")
    return f"{text}, {memory / 2**30:.1f} GiB memory" if memory else text
