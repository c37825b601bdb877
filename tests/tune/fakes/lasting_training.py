"""A training that keeps its state on disk and counts on from there, for tests of what happens when something dies.

It climbs half of the way to a peak that the learning rate sets, each epoch from the value it has, so that a wrong state
shows. optim.lr of a trial: 0.5 raises in epoch 2, 0.6 reports NaN there, 0.3 runs out of memory there, 0.2 kills its
own process there as the kernel does when memory runs out, others do nothing wrong. On a node of Ray whose id the file
BROKEN in the folder of the images names, nothing can be loaded. With LASTING_GATE, epoch 2 of a trial whose optim.lr is
not below LASTING_GATED_FROM waits until that file exists. No epoch ends while the sweep's folder holds the file
"hold". With LASTING_MADE there is something to share, and a line of that file for each row that any process made."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from infosam.config import ModelConfig, RunConfig
from tune.noop import NoopEpoch, NoopMaterials

if TYPE_CHECKING:
    from torch import Tensor

    from infosam.stored import Content

__all__ = ["load_materials", "machine_number", "train"]

EPOCH_S = float(os.environ.get("LASTING_EPOCH_S", "0.15"))
MADE = os.environ.get("LASTING_MADE")
MADE_ROWS = 20
GATE = os.environ.get("LASTING_GATE")
GATED_FROM = float(os.environ.get("LASTING_GATED_FROM", "inf"))


class SharedMaterials(NoopMaterials):
    """Every kind of store has the same rows, of 1 KiB."""

    def content(self, what: Any) -> Content:
        import torch

        from infosam.stored import Content

        name = what if isinstance(what, str) else what.of

        def make(index: int) -> Tensor:
            assert MADE is not None
            with Path(MADE).open("a") as file:
                file.write(f"{socket.gethostname()} {name} {index}\n")
            return torch.full((256,), float(index))

        return Content(key={"made": name}, rows=MADE_ROWS, dtype="float32", make=make)


def load_materials(model: ModelConfig, data: Path, *, baselines: bool = True, **others: Any) -> NoopMaterials:
    """See the top."""
    mark = data / "BROKEN"
    if not baselines and mark.exists() and ray.get_runtime_context().get_node_id() == mark.read_text():
        raise RuntimeError("this GPU is broken")
    return SharedMaterials() if MADE else NoopMaterials()


def train(config: RunConfig, materials: NoopMaterials, *, checkpoint_dir: Path | None = None) -> Iterator[NoopEpoch]:
    assert checkpoint_dir is not None
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    path = checkpoint_dir / "state.json"
    history: list[float] = json.loads(path.read_text()) if path.exists() else []
    if history:
        yield _report(history)
    peak = 0.9 - 0.1 * abs(math.log10(config.optim.lr) + 3)
    while len(history) < config.train.epochs:
        time.sleep(EPOCH_S)
        while GATE and len(history) == 1 and config.optim.lr >= GATED_FROM and not Path(GATE).exists():
            time.sleep(0.1)
        while (checkpoint_dir.parents[3] / "hold").exists():
            time.sleep(0.1)
        dice = history[-1] if history else 0.0
        dice = _gone_wrong(config.optim.lr, dice + (peak - dice) / 2, len(history) + 1)
        history.append(dice)
        if (checkpoint_dir.parents[3] / "disk-full").exists():  # of a test that cannot mount a small disk
            raise OSError(errno.ENOSPC, "No space left on device")
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(history))
        temporary.replace(path)
        yield _report(history)


def machine_number(host: str) -> float:
    """A host's name as a metric."""
    return float(zlib.crc32(host.encode()))


def _report(history: list[float]) -> NoopEpoch:
    dice = history[-1]
    values = {f"val/{prompt}{metric}": dice for prompt in ("", "box/", "none/") for metric in ("dice", "iou")}
    values["worker"] = float(os.getpid())
    values["machine"] = machine_number(socket.gethostname())
    return NoopEpoch(epoch=len(history), values=values, is_best=dice == max(history))


def _gone_wrong(lr: float, dice: float, epoch: int) -> float:
    if epoch != 2:
        return dice
    if lr == 0.5:
        raise RuntimeError("this is where it breaks")
    if lr == 0.3:
        raise MemoryError
    if lr == 0.2:
        os.kill(os.getpid(), signal.SIGKILL)
    return math.nan if lr == 0.6 else dice
