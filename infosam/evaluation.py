"""Scores of a SAM on a split: one row for the box around the truth, one for no prompt, beside what is trivial.

The protocol is `strict`: RGB, SAM's padding, exact boxes, logits restored to the original size and cut at 0, IoU and
Dice per image, then the mean over images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from segment_anything.modeling import Sam

from infosam import metrics
from infosam.baselines import TRIVIAL, ImageScore, trivial_scores
from infosam.bundle import read_bundle, restore
from infosam.data.dataset import Batch, Sample, SegmentationDataset, collate
from infosam.data.prompts import Prompts, box_of, frame_prompt
from infosam.data.schema import Split
from infosam.data.store import open_dataset
from infosam.data.transforms import restore_logits
from infosam.errors import ConfigError
from infosam.prompt_files import ImagePrompt, to_canvas
from infosam.sam.forward import decode
from infosam.sam.weights import load_base

Prompt = Literal["box", "none"]
PROMPTS: tuple[Prompt, ...] = get_args(Prompt)
PROTOCOL = (
    "strict protocol: RGB, SAM padding, prompt = exact box around the truth or none (the image frame), logits at "
    "original size cut at 0, IoU and Dice per image, mean over images"
)


@dataclass(frozen=True)
class EvaluationRow:
    """Mean scores of one model under one prompt."""

    model: str  # "adapter", "zero_shot", or a trivial baseline
    prompt: Prompt
    dice: float
    iou: float
    images: int


@dataclass(frozen=True)
class EvaluationTable:
    """All rows of a split, and the scores of every image behind them."""

    protocol: str
    rows: list[EvaluationRow]
    per_image: Mapping[tuple[str, Prompt], list[ImageScore]] = field(repr=False)

    def row(self, model: str, prompt: Prompt) -> EvaluationRow:
        """The row of one model and prompt. Raises KeyError."""
        for row in self.rows:
            if (row.model, row.prompt) == (model, prompt):
                return row
        raise KeyError(f"no row {model!r} with prompt {prompt!r}")

    def best_trivial(self, prompt: Prompt) -> EvaluationRow:
        """The trivial baseline with the higher Dice."""
        return max((row for row in self.rows if row.model in TRIVIAL and row.prompt == prompt), key=lambda r: r.dice)


@torch.no_grad()
def score(
    sam: Sam, dataset: SegmentationDataset, *, device: torch.device, batch_size: int = 8
) -> dict[Prompt, list[ImageScore]]:
    """IoU and Dice of every image of a split under both prompts; each image is encoded once."""
    scores: dict[Prompt, list[ImageScore]] = {prompt: [] for prompt in PROMPTS}
    for batch in batches(dataset, range(len(dataset)), batch_size):
        embeddings = sam.image_encoder(batch.image.to(device))
        samples = [dataset.sample(index) for index in batch.indices]
        for prompt in PROMPTS:
            prompts = evaluation_prompts(samples, batch, prompt).to(device)
            logits = decode(sam, embeddings, prompts).logits.cpu()
            restored = restore_logits(logits, dataset.canvas_px, batch.resized_hw, batch.original_hw)
            for sample, mask_logits in zip(samples, restored, strict=True):
                predicted, truth = mask_logits > 0, torch.from_numpy(sample.mask)
                scores[prompt].append(
                    ImageScore(id=sample.id, iou=metrics.iou(predicted, truth), dice=metrics.dice(predicted, truth))
                )
    return scores


def evaluation_prompts(samples: Sequence[Sample], batch: Batch, prompt: Prompt) -> Prompts:
    """Exact boxes around the truths at original size, brought to the canvas; or the frames, also for empty truths."""
    if prompt == "none":
        return frame_prompt(batch.resized_hw)
    rows = []
    for sample, resized in zip(samples, batch.resized_hw, strict=True):
        truth = torch.from_numpy(sample.mask)
        known = ImagePrompt(box=tuple(box_of(truth).tolist())) if sample.mask.any() else ImagePrompt()
        rows.append(to_canvas(known, (truth.shape[0], truth.shape[1]), resized))
    return Prompts(points=torch.cat([row.points for row in rows]), labels=torch.cat([row.labels for row in rows]))


def batches(dataset: SegmentationDataset, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
    """Items of a data set in the given order, the last batch possibly smaller."""
    for start in range(0, len(order), batch_size):
        yield collate([dataset[index] for index in order[start : start + batch_size]])


def mean_scores(scores: Mapping[Prompt, list[ImageScore]], prefix: str) -> dict[str, float]:
    """{"<prefix>/box/dice": ..., "<prefix>/box/iou": ..., "<prefix>/none/dice": ..., "<prefix>/none/iou": ...}."""
    return {
        f"{prefix}/{prompt}/{name}": float(np.mean([image[name] for image in images]))
        for prompt, images in scores.items()
        for name in ("dice", "iou")
    }  # fmt: skip


def trivial_means(dataset: SegmentationDataset, prefix: str) -> dict[str, float]:
    """Means of the trivial baseline with the higher Dice, per prompt, keyed like `mean_scores`."""
    result: dict[str, float] = {}
    for prompt in PROMPTS:
        means = [mean_scores({prompt: scores}, prefix) for scores in trivial_scores(dataset, prompt).values()]
        result.update(max(means, key=lambda mean: mean[f"{prefix}/{prompt}/dice"]))
    return result


def choose_device(device: str) -> torch.device:
    """`auto` is a GPU if there is one. Raises ConfigError for another name, or for a GPU that is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"the device must be auto, cpu or cuda, got {device!r}")
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise ConfigError("device cuda: torch finds no GPU here; use auto or cpu")
    return torch.device("cuda" if found and device != "cpu" else "cpu")


def evaluate_bundle(
    bundle_path: Path,
    data: Path,
    split: Split,
    *,
    device: str = "auto",
    checkpoint: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> EvaluationTable:
    """The adapter of a bundle, its zero-shot base and the trivial baselines on one split of a data set.

    `checkpoint` says where the base weights lie here, for other bases than vit_nano. Raises BundleError,
    BundleMismatch, WeightsError or DataError."""
    bundle = read_bundle(bundle_path)
    base = load_base(bundle.model(checkpoint))
    dataset = SegmentationDataset(open_dataset(data), split, base.spec.image_px)
    target = choose_device(device)
    per_image: dict[tuple[str, Prompt], list[ImageScore]] = {}
    for name, sam in (("zero_shot", base.sam), ("adapter", restore(bundle, base))):
        if progress:
            progress(name)
        for prompt, scores in score(sam.to(target), dataset, device=target).items():
            per_image[name, prompt] = scores
    for prompt in PROMPTS:
        for name, scores in trivial_scores(dataset, prompt).items():
            per_image[name, prompt] = scores
    return EvaluationTable(protocol=f"{PROTOCOL}; split {split}", rows=_rows(per_image), per_image=per_image)


def _rows(per_image: Mapping[tuple[str, Prompt], list[ImageScore]]) -> list[EvaluationRow]:
    return [
        EvaluationRow(
            model=model,
            prompt=prompt,
            dice=float(np.mean([image["dice"] for image in scores])),
            iou=float(np.mean([image["iou"] for image in scores])),
            images=len(scores),
        )
        for (model, prompt), scores in per_image.items()
    ]
