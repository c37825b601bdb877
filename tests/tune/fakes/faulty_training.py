"""The real training, with trials that go wrong after their first epoch; chosen by the learning rate of a trial.

optim.lr of a trial: 0.05 runs out of memory, 0.06 raises in the second process only while the others wait for it, 0.07
kills its own process once, after the last epoch was saved and before it is reported."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from infosam import distributed
from infosam.config import RunConfig
from infosam.training import EpochReport, Materials, load_materials
from infosam.training import train as really_train

__all__ = ["load_materials", "train"]


def train(config: RunConfig, materials: Materials, *, checkpoint_dir: Path | None = None) -> Iterator[EpochReport]:
    assert checkpoint_dir is not None
    fresh = not checkpoint_dir.exists()
    for report in really_train(config, materials, checkpoint_dir=checkpoint_dir):
        if config.optim.lr == 0.07 and fresh and report.epoch == config.train.epochs:
            os.kill(os.getpid(), signal.SIGKILL)
        yield report
        if config.optim.lr == 0.05:
            raise MemoryError("no room for 3 GiB")
        if config.optim.lr == 0.06 and distributed.rank() == 1:
            raise RuntimeError("only here")
