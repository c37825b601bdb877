"""Data-parallel training: several processes do what one does, in loss and in gradients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from infosam import distributed
from infosam.bundle import read_bundle
from infosam.config import RunConfig
from infosam.materials import Materials
from infosam.training import train

Configure = Callable[..., RunConfig]
PROCESS = Path(__file__).parent / "fakes" / "parallel_training.py"


def run_parallel(config: RunConfig, data: Path, out: Path, world: int) -> list[Any]:
    """What each process reported."""
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(PROCESS), str(data), str(out)]
    rest = [str(world), str(out / "meeting"), config.model_dump_json()]
    started = [subprocess.Popen([*command, str(rank), *rest]) for rank in range(world)]
    try:
        assert [process.wait(timeout=200) for process in started] == [0] * world
    finally:
        for process in started:
            process.kill()
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(world)]


def first_step(**groups: Any) -> dict[str, Any]:
    """One epoch of one step, without clipping, so that Adam's first moment is a tenth of the gradient."""
    settings: dict[str, Any] = {
        "train": {"epochs": 1, "batch_size": 4},
        "optim": {"clip_norm": None, "warmup_fraction": 0.0},
        "prompts": {"box": 0.5, "point": 0.25, "none": 0.25},
    }
    return {name: {**settings.get(name, {}), **groups.get(name, {})} for name in settings.keys() | groups.keys()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "groups",
    [
        pytest.param({"peft": {"kind": "lora", "rank": 2}}, id="infosam"),
        pytest.param(
            {
                "info": {"compression": 0.5, "distillation": 2.0, "features": 0.3},
                "peft": {"kind": "adapter", "width": 4, "zero_init": False},
                "augment": {"flip": 0.5, "rotation_deg": 20, "colour": 0.2},
                "prompts": {"box": 0.0, "point": 0.0, "points": 1.0, "none": 0.0},
            },
            id="all-terms-augmented",
        ),
        pytest.param({"train": {"accumulate": 2}, "peft": {"kind": "lora", "rank": 2}}, id="infosam-in-parts"),
    ],
)
def test_two_processes_do_what_one_does(
    materials: Materials, spores: Path, configure: Configure, tmp_path: Path, groups: Any
) -> None:
    config = configure(**first_step(**groups))
    (alone,) = train(config, materials, checkpoint_dir=tmp_path / "alone")
    both = run_parallel(config, spores, tmp_path / "both", 2)
    seconds = "cost/seconds"
    assert both[0] == both[1]
    for name, value in alone.values.items():
        if name != seconds:
            assert both[0][0][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert alone.checkpoint is not None
    found = load_file(tmp_path / "both" / "checkpoints" / "epoch-0001" / "optimizer.safetensors")
    expected = load_file(alone.checkpoint / "optimizer.safetensors")
    assert found.keys() == expected.keys()
    moments = [name for name in expected if name.endswith("exp_avg")]
    assert moments
    largest = max(expected[name].abs().max().item() for name in moments)
    for name in moments:
        # A softmax does not see what is added to all its keys: the gradient of their bias is rounding noise.
        scale = max(expected[name].abs().max().item(), 1e-3 * largest)
        assert torch.allclose(found[name] / scale, expected[name] / scale, atol=1e-4), name


@pytest.mark.slow
def test_a_batch_that_cannot_be_divided_is_refused(spores: Path, configure: Configure, tmp_path: Path) -> None:
    config = configure(train={"epochs": 1, "batch_size": 3})
    for message in run_parallel(config, spores, tmp_path, 2):
        assert message.startswith("ConfigError: train.batch_size = 3 must be a multiple of 2")


@pytest.mark.slow
def test_the_command_under_torchrun(spores: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "infosam"]
    settings = ["model.image_px=64", "train.epochs=1", "train.batch_size=2", "train.device=cpu"]
    words = [*command, "train", "--data", str(spores), "--out", str(tmp_path / "run"), *settings]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=250, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1/1") == 1
    assert read_bundle(tmp_path / "run" / "bundle").card["epoch"] == 1


class TestAlone:
    """Without a process group nothing changes."""

    def test_a_process_alone_is_the_first_of_one(self) -> None:
        assert (distributed.rank(), distributed.world_size()) == (0, 1)

    def test_it_keeps_everything(self) -> None:
        rows = torch.randn(3, 2, requires_grad=True)
        assert distributed.gather_rows(rows) is rows
        assert distributed.share([1, 2, 3]) == [1, 2, 3]
        assert distributed.average({"a": 1.5}, torch.device("cpu")) == {"a": 1.5}
        rows.sum().backward()
        assert rows.grad is not None
        before = rows.grad.clone()
        distributed.average_gradients([rows])
        assert torch.equal(rows.grad, before)
        distributed.wait_for_all()
