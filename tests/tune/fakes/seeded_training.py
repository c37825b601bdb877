"""A training whose score depends on seed and information terms: what repeats and twins measure is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from infosam.config import RunConfig
from tune.noop import NoopEpoch, NoopMaterials, load_materials
from tune.noop import train as count

__all__ = ["load_materials", "train"]

LUCK = (0.0, -0.02, -0.01)
GAIN = (0.05, 0.06, 0.04)


def train(config: RunConfig, materials: NoopMaterials, *, checkpoint_dir: Path | None = None) -> Iterator[NoopEpoch]:
    """Adds the seed's luck, and with information terms what they give under that seed."""
    bonus = LUCK[config.train.seed % 3] + (GAIN[config.train.seed % 3] if config.info.relational else 0.0)
    for report in count(config, materials):
        yield replace(report, values={**report.values, "val/dice": report.values["val/dice"] + bonus})
