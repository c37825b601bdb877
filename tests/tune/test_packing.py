"""What is refused before it fills the memory of a machine, on numbers alone."""

from __future__ import annotations

import pytest

from tune.config import ResourceConfig
from tune.packing import TooTight, check_packing

GIB = 2**30
VIT_H_BYTES = int(2.4 * GIB)


def check(nodes: list[dict[str, float]], *, slots: int = 99, **resources: object) -> None:
    check_packing(ResourceConfig.model_validate(resources), nodes, slots=slots, weights_bytes=VIT_H_BYTES)


def test_more_processes_than_memory_holds_are_refused() -> None:
    small = {"CPU": 8.0, "memory": 12.0 * GIB}
    with pytest.raises(TooTight, match=r"8 training processes .* 12.0 GiB .* resources\.slots=4"):
        check([{"CPU": 2.0, "memory": 64.0 * GIB}, small])


@pytest.mark.parametrize(
    ("node", "slots", "resources"),
    [
        ({"CPU": 8.0, "memory": 64.0 * GIB}, 99, {}),
        ({"CPU": 8.0, "memory": 12.0 * GIB}, 4, {}),
        ({"CPU": 8.0, "memory": 12.0 * GIB}, 99, {"cpus_per_worker": 2}),
        ({"CPU": 8.0, "memory": 12.0 * GIB}, 99, {"memory_gib_per_worker": 3}),
        ({"CPU": 8.0}, 99, {}),
        ({"CPU": 8.0, "GPU": 1.0, "memory": 12.0 * GIB}, 99, {"gpus_per_worker": 0.25}),
    ],
    ids=["large", "few slots", "few workers", "reserved by Ray", "tells no memory", "held by the GPU"],
)
def test_what_may_fit_is_left_to_measurement(node: dict[str, float], slots: int, resources: dict[str, float]) -> None:
    check([node], slots=slots, **resources)


def test_reserved_memory_counts_where_it_is_more() -> None:
    """Ray itself holds no more of them on the machine."""
    check([{"CPU": 8.0, "memory": 12.0 * GIB}], memory_gib_per_worker=6)
