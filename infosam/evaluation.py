"""Scores of a SAM on a split: one row for the box around the truth, one for no prompt, beside what is trivial.

How images are shown, prompted and cut is the data set's protocol; by default `strict`: RGB, SAM's padding, exact boxes,
logits restored to the original size and cut at 0, IoU and Dice per image, then the mean over images. Training scores
every epoch with this room; `assessment` takes all metrics, with intervals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor

from infosam import metrics
from infosam.baselines import TRIVIAL, ImageScore, trivial_scores
from infosam.bundle import Bundle, read_bundle, restore
from infosam.data.card import Split
from infosam.data.dataset import Batch, SegmentationDataset, collate
from infosam.data.store import open_dataset
from infosam.data.transforms import restore_logits
from infosam.errors import ConfigError
from infosam.protocol_prompts import evaluation_prompts
from infosam.protocols import PROTOCOLS, STRICT, Prompt, ProtocolConfig
from infosam.sam.forward import decode
from infosam.sam.weights import BaseSam, load_base

PROMPTS: tuple[Prompt, ...] = STRICT.prompts
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
    means: Mapping[tuple[str, Prompt], Mapping[str, float]] = field(default_factory=dict)  # of every measured metric

    def row(self, model: str, prompt: Prompt) -> EvaluationRow:
        """The row of one model and prompt. Raises KeyError."""
        for row in self.rows:
            if (row.model, row.prompt) == (model, prompt):
                return row
        raise KeyError(f"no row {model!r} with prompt {prompt!r}")

    def best_trivial(self, prompt: Prompt) -> EvaluationRow:
        """The trivial baseline with the higher Dice."""
        return max((row for row in self.rows if row.model in TRIVIAL and row.prompt == prompt), key=lambda r: r.dice)

    def dice(self, model: str, prompt: Prompt) -> NDArray[np.float64]:
        """Dice of each image (n,) for one model and prompt, in the order of the split. Raises KeyError."""
        return np.array([image["dice"] for image in self.per_image[model, prompt]], dtype=np.float64)


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image under one prompt."""

    index: int  # position in the split
    prompt: Prompt
    id: str
    truth: NDArray[np.bool_]  # (H, W)
    logits: Tensor  # (H, W) at original size, on the model's device


Measure = Callable[[Tensor, NDArray[np.bool_], ProtocolConfig], dict[str, float]]
"""Metrics of logits (H, W) against a truth (H, W)."""


class _Meter:
    """Takes a measure of every prediction it sees."""

    def __init__(self, measure: Measure, protocol: ProtocolConfig) -> None:
        self._measure = measure
        self._protocol = protocol
        self._found: dict[Prompt, list[dict[str, float]]] = defaultdict(list)

    def __call__(self, made: Prediction) -> None:
        self._found[made.prompt].append(self._measure(made.logits.cpu(), made.truth, self._protocol))

    def means(self, prompt: Prompt) -> dict[str, float]:
        """Over the images seen under a prompt."""
        rows = self._found[prompt]
        return {metric: float(np.mean([row[metric] for row in rows])) for metric in rows[0]}


@torch.no_grad()
def predictions(
    sam: Sam,
    dataset: SegmentationDataset,
    prompts: Sequence[Prompt],
    *,
    device: torch.device,
    batch_size: int = 8,
    order: Sequence[int] | None = None,
) -> Iterator[Prediction]:
    """Logits of the images in `order` (default: all) under each prompt, as the data set's protocol shows and prompts
    them; each image is encoded once."""
    for batch in batches(dataset, range(len(dataset)) if order is None else order, batch_size):
        embeddings = sam.image_encoder(batch.image.to(device))
        truths = [dataset.truth(index) for index in batch.indices]
        for prompt in prompts:
            given = evaluation_prompts(truths, batch, prompt, dataset.protocol).to(device)
            logits = decode(sam, embeddings, given).logits  # stays there: enlarging is most of what scoring costs
            restored = restore_logits(logits, dataset.canvas_px, batch.resized_hw, batch.original_hw)
            for found in zip(batch.indices, batch.ids, truths, restored, strict=True):
                index, row_id, truth, mask_logits = found
                yield Prediction(index, prompt, row_id, truth, mask_logits)


def score(
    sam: Sam,
    dataset: SegmentationDataset,
    *,
    device: torch.device,
    batch_size: int = 8,
    also: Callable[[Prediction], None] | None = None,
) -> dict[Prompt, list[ImageScore]]:
    """IoU and Dice of every image of a split under a box and under no prompt; `also` sees each prediction."""
    shown: list[tuple[Prompt, str]] = []
    pixels: list[Tensor] = []
    for made in predictions(sam, dataset, PROMPTS, device=device, batch_size=batch_size):
        truth = torch.from_numpy(made.truth).to(made.logits.device)
        shown.append((made.prompt, made.id))
        if also is not None:
            also(made)
        pixels.append(torch.stack([metrics.overlap(mask, truth) for mask in cut(made.logits, dataset.protocol)]))
    scores: dict[Prompt, list[ImageScore]] = {prompt: [] for prompt in PROMPTS}
    for (prompt, row_id), counts in zip(shown, torch.stack(pixels).tolist(), strict=True):  # fetched from a GPU once
        iou, dice = (float(np.mean([of(*count) for count in counts])) for of in (metrics.iou_of, metrics.dice_of))
        scores[prompt].append(ImageScore(id=row_id, iou=iou, dice=dice))
    return scores


def cut(logits: Tensor, protocol: ProtocolConfig) -> list[Tensor]:
    """One bool mask per threshold of the protocol; scores are averaged over them."""
    return [logits > threshold for threshold in protocol.thresholds]


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
    measure: Measure | None = None,
) -> EvaluationTable:
    """The adapter of a bundle, its zero-shot base and the trivial baselines on one split of a data set.

    Images come in the colours and padding the bundle was trained with; the rest is the strict protocol. `checkpoint`
    says where the base weights lie here, for other bases than vit_nano. `measure`, as `infosam.assessment.measure`,
    adds the means of further metrics from the same predictions. Raises BundleError, BundleMismatch, WeightsError or
    DataError."""
    bundle = read_bundle(bundle_path)
    base = load_base(bundle.model(checkpoint))
    dataset = _strict_dataset(bundle, data, split, base)
    target = choose_device(device)
    per_image: dict[tuple[str, Prompt], list[ImageScore]] = {}
    means: dict[tuple[str, Prompt], dict[str, float]] = {}
    for name, sam in compared(bundle, base).items():
        if progress:
            progress(name)
        meter = None if measure is None else _Meter(measure, dataset.protocol)
        for prompt, scores in score(sam.to(target), dataset, device=target, also=meter).items():
            per_image[name, prompt] = scores
            if meter is not None:
                means[name, prompt] = meter.means(prompt)
    for prompt in PROMPTS:
        for name, scores in trivial_scores(dataset, prompt).items():
            per_image[name, prompt] = scores
    protocol = f"{PROTOCOL}; split {split}"
    return EvaluationTable(protocol=protocol, rows=_rows(per_image), per_image=per_image, means=means)


def adapter_dice(
    bundle_path: Path, data: Path, split: Split, prompt: Prompt, *, device: str = "auto", checkpoint: Path | None = None
) -> NDArray[np.float64]:
    """Dice of each image (n,) of a split by a bundle alone, as in `evaluate_bundle`, with which it shares the rest."""
    bundle = read_bundle(bundle_path)
    base = load_base(bundle.model(checkpoint))
    target = choose_device(device)
    scores = score(restore(bundle, base).to(target), _strict_dataset(bundle, data, split, base), device=target)
    return np.array([image["dice"] for image in scores[prompt]], dtype=np.float64)


def _strict_dataset(bundle: Bundle, data: Path, split: Split, base: BaseSam) -> SegmentationDataset:
    """A split under the strict protocol, but for how the pictures come to the encoder: a bundle expects its own way."""
    trained = PROTOCOLS[bundle.config.model.protocol]
    protocol = STRICT.model_copy(update={"channels": trained.channels, "padding": trained.padding})
    return SegmentationDataset(open_dataset(data), split, base.spec.image_px, protocol=protocol)


def compared(bundle: Bundle, base: BaseSam) -> dict[str, Sam]:
    """The base as it is, and with the bundle's adapter."""
    return {"zero_shot": base.sam, "adapter": restore(bundle, base)}


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
