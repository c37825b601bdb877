"""What is a good number on a data set, before any training: trivial masks and SAM as it is, scored on one split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infosam.config import ModelConfig
from infosam.data.card import Split
from infosam.data.dataset import SegmentationDataset
from infosam.data.store import open_dataset
from infosam.evaluation import PROMPTS, choose_device, mean_scores, score, trivial_means
from infosam.protocols import Prompt
from infosam.sam.weights import load_base


@dataclass(frozen=True)
class Yardstick:
    """Mean scores under one prompt."""

    prompt: Prompt
    trivial_dice: float  # of the better of the trivial masks
    trivial_iou: float
    zero_shot_dice: float
    zero_shot_iou: float


def yardsticks(data: Path, split: Split, model: ModelConfig, *, device: str = "auto") -> list[Yardstick]:
    """One row per prompt of the strict protocol. Raises DataError, WeightsError or ConfigError."""
    target = choose_device(device)
    base = load_base(model)
    dataset = SegmentationDataset(open_dataset(data), split, base.spec.image_px)
    trivial = trivial_means(dataset, "t")
    zero_shot = mean_scores(score(base.sam.to(target), dataset, device=target), "z")
    return [
        Yardstick(
            prompt,
            trivial[f"t/{prompt}/dice"],
            trivial[f"t/{prompt}/iou"],
            zero_shot[f"z/{prompt}/dice"],
            zero_shot[f"z/{prompt}/iou"],
        )
        for prompt in PROMPTS
    ]
