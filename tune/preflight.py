"""What sweeps are refused for once Ray is there, before any of them begins; a sweep and its dry run ask the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tune.config import SearchConfig
from tune.packing import check_gpu_share, check_packing, gpu_memory
from tune.plan import TRAINING, SweepPlan
from tune.resources import cluster_nodes, count_slots
from tune.stores import check_store


def check_cluster(
    plans: Sequence[SweepPlan],
    studies: Sequence[tuple[str, SearchConfig, str | None]],
    *,
    folders: Sequence[Path],
    trials: int,
    warn: Callable[[str], None],
) -> int:
    """Trials to run at a time on the Ray that is connected.

    Args:
        plans: the sweeps that will share the slots.
        studies: name, settings and owner of those that will be opened, see `tune.study_store.check_study`.
        folders: that trials write to.
        trials: of all of them.
        warn: told what is allowed and may not be meant.

    Raises UserError for a tracking store, a study, resources or a packing that cannot be."""
    config, nodes = plans[0].config, cluster_nodes()
    check_store(plans[0].tracking_uri, nodes=len(nodes))
    for name, search, owner in studies:
        if search.storage == "rdb":  # the only one that sweeps of different folders share
            from tune.study_store import check_study

            check_study(name, search, owner)
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    if gpus and not config.resources.gpus_per_worker:
        warn(f"{gpus:g} GPU will stay idle: set resources.gpus_per_worker=1, or a fraction to share one")
    if len(nodes) > 1 and config.storage is None and config.resources.mirror is None:
        shared = ", ".join(str(path) for path in [*folders, *(plan.config.data for plan in plans)])
        warn(
            f"{len(nodes)} nodes must all see {shared}: trials keep their checkpoints there (set storage to a "
            "shared folder)"
        )
    slots = count_slots(config.resources, nodes, trials)
    if plans[0].training == TRAINING:
        from infosam.sam.weights import weights_path

        weights_bytes = weights_path(config.run.model).stat().st_size
        check_packing(config.resources, nodes, slots=slots, weights_bytes=weights_bytes)
        check_gpu_share(config.resources, gpu_memory(config.resources), weights_bytes=weights_bytes)
    return slots
