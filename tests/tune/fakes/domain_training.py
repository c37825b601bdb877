"""A training whose scores depend on the domain, and which says what its materials are made of.

Data in a folder called `ring` scores a tenth less than elsewhere; in a folder called `broken` every trial raises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infosam.config import ModelConfig, RunConfig
from tune.noop import NoopEpoch, NoopMaterials
from tune.noop import train as count

LOADED: list[int] = []
"""One entry for each base model that this process has loaded."""


def _load_base() -> int:
    LOADED.append(len(LOADED))
    return LOADED[-1]


@dataclass(frozen=True)
class DomainMaterials(NoopMaterials):
    """Of one domain."""

    data: Path = Path()
    base: int = field(default_factory=_load_base)


def load_materials(
    model: ModelConfig, data: Path, *, like: DomainMaterials | None = None, **others: Any
) -> DomainMaterials:
    return DomainMaterials(data=data) if like is None else DomainMaterials(data=data, base=like.base)


def train(config: RunConfig, materials: DomainMaterials, *, checkpoint_dir: Path | None = None) -> Iterator[NoopEpoch]:
    assert checkpoint_dir is not None
    for report in count(config, materials):
        if materials.data.name == "broken":
            raise RuntimeError("these images are not fit to learn from")
        dice = report.values["val/dice"] - 0.1 * (materials.data.name == "ring")
        known = {"worker": float(os.getpid()), "bases": float(len(LOADED)), "base": float(materials.base)}
        yield replace(report, values={**report.values, **known, "val/dice": dice, "val/box/dice": dice})
