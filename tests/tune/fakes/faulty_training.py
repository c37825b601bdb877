"""The real training, with trials that go wrong after their first epoch; chosen by the learning rate of a trial.

On a GPU it also tells its process and what was allocated when the trial began. optim.lr of a trial: 0.05 runs out of
memory, 0.06 raises in the second process only while the others wait for it, 0.07
kills its own process once, after the last epoch was saved and before it is reported."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from infosam import distributed
from infosam.config import RunConfig
from infosam.training import EpochReport, Materials, load_materials
from infosam.training import train as really_train

__all__ = ["load_materials", "train"]


def train(config: RunConfig, materials: Materials, *, checkpoint_dir: Path | None = None) -> Iterator[EpochReport]:
    assert checkpoint_dir is not None
    fresh = not checkpoint_dir.exists()
    has_gpu = materials.device.type == "cuda"
    told = {"process": float(os.getpid()), "gpu/bytes_before": float(torch.cuda.memory_allocated())} if has_gpu else {}
    for report in really_train(config, materials, checkpoint_dir=checkpoint_dir):
        if config.optim.lr == 0.07 and fresh and report.epoch == config.train.epochs:
            os.kill(os.getpid(), signal.SIGKILL)
        yield replace(report, values={**report.values, **told})
        if config.optim.lr == 0.05:
            if has_gpu:
                torch.empty(2**50, dtype=torch.uint8, device="cuda")
            raise MemoryError("no room for 3 GiB")
        if config.optim.lr == 0.06 and distributed.rank() == 1:
            raise RuntimeError("only here")
