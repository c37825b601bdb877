"""A training that only counts: to test and measure the search without paying for learning.

Its validation Dice rises with the epochs towards a peak that depends on the learning rate (best at 1e-3), so that a
search has something to find. It imports no torch and writes no file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from infosam.config import ModelConfig, RunConfig


@dataclass(frozen=True, kw_only=True)
class NoopEpoch:
    """As `infosam.training.EpochReport`."""

    epoch: int
    values: dict[str, float]
    checkpoint: Path | None = None
    is_best: bool = True


@dataclass(frozen=True)
class NoopMaterials:
    """As `infosam.training.Materials`, of a base model that scores half of what is possible."""

    zero_shot: dict[str, float] = field(default_factory=lambda: _scores(0.5))
    trivial: dict[str, float] = field(default_factory=lambda: _scores(0.4))
    data_digest: str = "0" * 64
    base_sha256: str = "0" * 64


def load_materials(
    model: ModelConfig,
    data: Path,
    *,
    device: str = "auto",
    baselines: bool = True,
    stores: Path | None = None,
    like: NoopMaterials | None = None,
) -> NoopMaterials:
    """Loads nothing."""
    return NoopMaterials()


def train(config: RunConfig, materials: NoopMaterials, *, checkpoint_dir: Path | None = None) -> Iterator[NoopEpoch]:
    """Counts to `train.epochs`."""
    peak = 0.9 - 0.1 * abs(math.log10(config.optim.lr) + 3)
    for epoch in range(1, config.train.epochs + 1):
        score = peak * (1 - 0.5**epoch)
        yield NoopEpoch(epoch=epoch, values={**_scores(score), "loss/total": 1 - score})


def _scores(dice: float) -> dict[str, float]:
    return {f"val/{prompt}{metric}": dice for prompt in ("", "box/", "none/") for metric in ("dice", "iou")}
