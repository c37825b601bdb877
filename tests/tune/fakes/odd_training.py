"""Trainings for tests of what goes wrong, driven by the learning rate of a trial; workers import it by name.

optim.lr of a trial: 0.5 raises in epoch 2, 0.6 reports NaN in epoch 2, 0.7 kills its own process once in epoch 2,
0.8 kills it every time, 0.3 kills it once between saving epoch 2 and reporting it, 0.4 ends by itself after 2 epochs,
0.9 runs out of memory in epoch 2, others count slowly."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from infosam.config import RunConfig
from tune.noop import NoopEpoch, NoopMaterials, load_materials
from tune.noop import train as count

__all__ = ["load_materials", "train"]


def train(config: RunConfig, materials: NoopMaterials, *, checkpoint_dir: Path | None = None) -> Iterator[NoopEpoch]:
    assert checkpoint_dir is not None
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    done = checkpoint_dir / "epochs"
    first = int(done.read_text()) if done.exists() else 0
    for report in count(config, materials):
        if report.epoch < first:
            continue
        time.sleep(0.02)
        if report.epoch == 2 > first:
            report = _go_wrong(config.optim.lr, report, checkpoint_dir)
        if config.optim.lr == 0.4 and report.epoch == 3:
            return
        done.write_text(str(report.epoch))
        if config.optim.lr == 0.3 and report.epoch == 2 > first:
            os.kill(os.getpid(), signal.SIGKILL)
        yield replace(report, values={**report.values, "worker": float(os.getpid())})


def _go_wrong(lr: float, report: NoopEpoch, folder: Path) -> NoopEpoch:
    if lr == 0.5:
        raise RuntimeError("the second epoch\nis where it breaks")
    if lr == 0.9:
        raise MemoryError("no room for 3 GiB")
    if lr == 0.6:
        return replace(report, values={**report.values, "val/dice": float("nan")})
    mark = folder / "died"
    if lr == 0.8 or (lr == 0.7 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return report
