"""What is refused before it fills the memory of a machine, on numbers alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import ray

from tune.config import ResourceConfig
from tune.packing import TooTight, check_gpu_share, check_packing, gpu_memory

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


def share(gpus: float, **gpu_gib: float) -> None:
    gpu_bytes = {machine: int(size * GIB) for machine, size in gpu_gib.items()}
    check_gpu_share(ResourceConfig(gpus_per_worker=gpus), gpu_bytes, weights_bytes=VIT_H_BYTES)


def test_a_share_of_a_gpu_that_does_not_hold_the_model_is_refused() -> None:
    with pytest.raises(TooTight, match=r"small: 0\.1 of a GPU with 16\.0 GiB .*resources\.gpus_per_worker=0\.15 "):
        share(0.1, large=80, small=16)
    with pytest.raises(TooTight, match="take a larger GPU"):
        share(0.5, small=2)


@pytest.mark.parametrize(("gpus", "gpu_gib"), [(0.2, 16.0), (1.0, 1.0), (2.0, 1.0), (0.0, 1.0)])
def test_other_shares_are_left_to_measurement(gpus: float, gpu_gib: float) -> None:
    share(gpus, machine=gpu_gib)


@pytest.mark.slow
def test_machines_say_what_their_gpus_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By NVIDIA's program; the smallest decides, and who cannot say it is not checked."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 81920\necho 24576\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    shared = ResourceConfig(gpus_per_worker=0.5)
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=1, num_gpus=1, object_store_memory=80 * 2**20, **options)
    try:
        assert gpu_memory(shared) == {socket.gethostname(): 24 * GIB}
        assert gpu_memory(ResourceConfig(gpus_per_worker=1)) == {}
        program.write_text("#!/bin/sh\necho '[N/A]'\n")
        assert gpu_memory(shared) == {}
    finally:
        ray.shutdown()
