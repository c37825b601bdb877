"""Real training that fails unless all it needed of frozen models and images came from the stores of its machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from infosam.config import RunConfig
from infosam.training import EpochReport, Materials, load_materials
from infosam.training import train as really_train

__all__ = ["load_materials", "train"]


def train(config: RunConfig, materials: Materials, *, checkpoint_dir: Path | None = None) -> Iterator[EpochReport]:
    yield from really_train(config, materials, checkpoint_dir=checkpoint_dir)
    if materials.base_encodings._memory or materials.train_set._cache or materials.val_set._cache:
        raise RuntimeError("this process kept something of its own")
