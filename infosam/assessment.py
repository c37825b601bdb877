"""Every metric of a bundle on a split, beside zero-shot SAM and what is trivial, with intervals and examples.

`evaluation` is the cheap part of this that training and search use; here is all that a reader of results wants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor

from infosam import metrics
from infosam.baselines import TRIVIAL, trivial_masks
from infosam.bootstrap import Interval, gain_interval, mean_interval
from infosam.bundle import read_bundle
from infosam.data.card import Split
from infosam.data.dataset import SegmentationDataset
from infosam.data.store import Sample, open_dataset
from infosam.evaluation import choose_device, compared, cut, predictions
from infosam.metrics import METRICS
from infosam.protocols import STRICT, Prompt, ProtocolConfig
from infosam.sam.weights import load_base

MODELS = ("adapter", "zero_shot", *TRIVIAL)
RANKED_BY = "dice"


@dataclass(frozen=True)
class Example:
    """One image that the adapter did best or worst, under the protocol's first prompt."""

    sample: Sample
    best: bool  # else worst
    masks: Mapping[str, NDArray[np.bool_]]  # (H, W) of "adapter" and "zero_shot"
    scores: Mapping[str, float]  # `RANKED_BY` of the same


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """All scores of one bundle on one split."""

    protocol: ProtocolConfig
    split: Split
    card: Mapping[str, object]  # of the bundle
    ids: list[str]
    scores: Mapping[tuple[str, Prompt], Mapping[str, NDArray[np.float64]]] = field(repr=False)  # metric -> (images,)
    examples: list[Example] = field(repr=False)

    def interval(self, model: str, prompt: Prompt, metric: str) -> Interval:
        """Mean of one metric with its bootstrap interval over images."""
        return mean_interval(self.scores[model, prompt][metric], seed=self.protocol.seed)

    def gain(self, prompt: Prompt, metric: str) -> Interval:
        """Adapter minus zero-shot SAM on the same images; below 0 is the better side for MAE and BER."""
        ours, theirs = (self.scores[model, prompt][metric] for model in ("adapter", "zero_shot"))
        return gain_interval(ours, theirs, seed=self.protocol.seed)

    def describe(self) -> str:
        """One line for under a table."""
        return f"{self.protocol.describe()}; split {self.split}; training seed {self.card['seed']}"


def assess_bundle(
    bundle_path: Path,
    data: Path,
    split: Split,
    *,
    protocol: ProtocolConfig = STRICT,
    device: str = "auto",
    checkpoint: Path | None = None,
    examples: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Assessment:
    """All metrics per image under each prompt of the protocol, and up to `examples` best and as many worst images.

    `checkpoint` says where the base weights lie here, for other bases than vit_nano. Raises BundleError,
    BundleMismatch, WeightsError, ConfigError or DataError."""
    target = choose_device(device)
    bundle = read_bundle(bundle_path)
    base = load_base(bundle.model(checkpoint))
    dataset = SegmentationDataset(open_dataset(data), split, base.spec.image_px, protocol=protocol)
    models = {name: sam.to(target) for name, sam in compared(bundle, base).items()}
    scores: dict[tuple[str, Prompt], Mapping[str, NDArray[np.float64]]] = {}
    for name, sam in models.items():
        if progress:
            progress(name)
        found: dict[Prompt, list[dict[str, float]]] = {prompt: [] for prompt in protocol.prompts}
        for made in predictions(sam, dataset, protocol.prompts, device=target):
            found[made.prompt].append(measure(made.logits.cpu(), made.truth, protocol))
        scores |= {(name, prompt): _columns(rows) for prompt, rows in found.items()}
    if progress:
        progress("trivial baselines")
    scores |= _trivial(dataset, protocol)
    order = np.argsort(scores["adapter", protocol.prompts[0]][RANKED_BY], kind="stable").tolist()
    count = min(examples, len(order) // 2) if len(order) > 1 else min(examples, 1)
    worst, best = order[:count], order[::-1][:count]
    return Assessment(
        protocol=protocol,
        split=split,
        card=bundle.card,
        ids=dataset.store.ids(split),
        scores=scores,
        examples=_examples(models, dataset, best, target, best=True)
        + _examples(models, dataset, worst, target, best=False),
    )


def measure(logits: Tensor, truth: NDArray[np.bool_], protocol: ProtocolConfig) -> dict[str, float]:
    """Every metric of `METRICS` for logits (H, W) at original size against a truth (H, W)."""
    squashed = logits.sigmoid() if protocol.map_from == "sigmoid" else logits.clamp(0, 1)
    return _measure(cut(logits, protocol), squashed.numpy(), truth, protocol)


def measure_mask(mask: Tensor, truth: NDArray[np.bool_], protocol: ProtocolConfig) -> dict[str, float]:
    """Every metric of `METRICS` for a bool mask (H, W): the map is 0 and 1, and no threshold changes it."""
    return _measure([mask], mask.numpy().astype(np.float64), truth, protocol)


def _measure(
    masks: Sequence[Tensor], probability: NDArray[np.floating], truth: NDArray[np.bool_], protocol: ProtocolConfig
) -> dict[str, float]:
    truth_mask = torch.from_numpy(truth)
    aligned = metrics.e_measure(probability, truth, toolbox_empty=protocol.toolbox_empty)
    found = {
        "dice": _mean(metrics.dice(mask, truth_mask) for mask in masks),
        "iou": _mean(metrics.iou(mask, truth_mask) for mask in masks),
        "s_measure": metrics.s_measure(probability, truth),
        "e_adaptive": aligned.adaptive,
        "e_mean": aligned.mean,
        "e_max": aligned.maximum,
        "weighted_f": metrics.weighted_f(
            probability, truth, beta=protocol.weighted_f_beta, toolbox_empty=protocol.toolbox_empty
        ),
        "mae": metrics.mae(probability, truth),
        "ber": _mean(metrics.ber(mask.numpy(), truth) for mask in masks),
        "boundary_f": _mean(metrics.boundary_f(mask.numpy(), truth) for mask in masks),
    }
    assert found.keys() == METRICS.keys()
    return found


def _trivial(
    dataset: SegmentationDataset, protocol: ProtocolConfig
) -> dict[tuple[str, Prompt], Mapping[str, NDArray[np.float64]]]:
    found: dict[tuple[str, Prompt], list[dict[str, float]]] = {
        (name, prompt): [] for name in TRIVIAL for prompt in protocol.prompts
    }
    for index in range(len(dataset)):
        sample = dataset.sample(index)
        for prompt in protocol.prompts:
            for name, mask in trivial_masks(sample, prompt).items():
                found[name, prompt].append(measure_mask(mask, sample.mask, protocol))
    return {key: _columns(rows) for key, rows in found.items()}


def _examples(
    models: Mapping[str, Sam], dataset: SegmentationDataset, order: Sequence[int], device: torch.device, *, best: bool
) -> list[Example]:
    """Predicts the images in `order` once more: keeping the masks of a whole split would need a lot of memory."""
    protocol = dataset.protocol
    made = {
        name: list(predictions(sam, dataset, protocol.prompts[:1], device=device, order=order))
        for name, sam in models.items()
    }
    found = []
    for row in range(len(order)):
        sample = dataset.sample(order[row])
        masks = {name: cut(rows[row].logits.cpu(), protocol) for name, rows in made.items()}
        truth = torch.from_numpy(sample.mask)
        shown = {name: cuts[len(cuts) // 2].numpy() for name, cuts in masks.items()}
        scores = {name: _mean(metrics.dice(mask, truth) for mask in cuts) for name, cuts in masks.items()}
        found.append(Example(sample=sample, best=best, masks=shown, scores=scores))
    return found


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in METRICS}


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
