"""From a domain's training images to what the router knows about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infosam.data.dataset import SegmentationDataset
from infosam.data.transforms import normalise_and_pad, resize_image
from infosam.routing.disturbances import copies
from infosam.routing.features import FeatureConfig, features
from infosam.routing.scorers import SCORERS, ScorerName
from infosam.routing.statistics import DomainStatistics, RoutingCard
from infosam.sam.encoder import FrozenPass
from infosam.sam.weights import BaseSam
from infosam.synthetic.scenes import SceneMaker

MIN_IMAGES = 20
"""Of fewer images a fifth says nothing about how far the next image may lie."""
MOST_IMAGES = 300
PASSES = 400
"""About how many pictures are encoded, copies included."""
MOST_COPIES = 5
FOLDS = 5
QUANTILE = 0.97
"""Share of the held-out pictures that the threshold accepts (CA-SAM, arXiv 2511.17201, takes the same)."""
SCORER: ScorerName = "mahalanobis"
"""Chosen by validation, as the taps of `FeatureConfig`; see docs/routing.md."""
SCENES = 100
TOGETHER = 8


@dataclass(frozen=True)
class TrainingPictures:
    """What statistics are made of: some images of a split, each followed by its disturbed copies."""

    dataset: SegmentationDataset
    rows: Sequence[int]
    copies: int  # of each image
    seed: int

    @classmethod
    def choose(cls, dataset: SegmentationDataset, seed: int = 0) -> TrainingPictures | None:
        """At most MOST_IMAGES of a split; None if it has fewer than MIN_IMAGES."""
        found = [rows[0] for rows in dataset.store.images(dataset.split)]
        if len(found) < MIN_IMAGES:
            return None
        chosen = sorted(np.random.default_rng(seed).permutation(found)[:MOST_IMAGES].tolist())
        return cls(dataset, chosen, min(MOST_COPIES, max(1, PASSES // len(chosen) - 1)), seed)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for row in self.rows:
            rgb = self.dataset.sample(row).image
            yield rgb
            yield from copies(rgb, self.copies, np.random.default_rng([self.seed, row]))

    def __len__(self) -> int:
        return len(self.rows) * (1 + self.copies)


def fit_statistics(base: BaseSam, dataset: SegmentationDataset, device: torch.device) -> DomainStatistics | None:
    """Statistics of the images of a split, None if they are too few. What the images show is all that counts: no mask,
    adapter or other domain is looked at."""
    pictures = TrainingPictures.choose(dataset)
    if pictures is None:
        return None
    config = FeatureConfig()
    seen = encode_pictures(base, pictures, device, config)
    background = scene_features(base, device, config) if SCORER == "relative" else seen
    return statistics_of(pictures, seen, background, config=config, scorer=SCORER, canvas_px=base.spec.image_px)


def statistics_of(
    pictures: TrainingPictures, seen: Tensor, background: Tensor, *, config: FeatureConfig, scorer: ScorerName,
    canvas_px: int,
) -> DomainStatistics:  # fmt: skip
    """Statistics from the features `seen` (n, F) of the pictures; `background` as in `Scorer.fit`."""
    by_image = seen.unflatten(0, (len(pictures.rows), 1 + pictures.copies))
    card = RoutingCard(
        features=config,
        scorer=scorer,
        threshold=held_out_threshold(by_image, background, scorer, pictures.seed),
        images=len(pictures.rows),
        copies=pictures.copies,
        seed=pictures.seed,
        canvas_px=canvas_px,
    )
    return DomainStatistics(card, SCORERS[scorer].fit(seen, background))


def held_out_threshold(seen: Tensor, background: Tensor, scorer: ScorerName, seed: int) -> float:
    """QUANTILE of the scores that pictures (n, copies, F) get from statistics of the other folds, in which neither they
    nor their copies are."""
    order = np.random.default_rng(seed).permutation(len(seen))
    measure, scores = SCORERS[scorer], []
    for fold in range(FOLDS):
        out = torch.zeros(len(seen), dtype=torch.bool)
        out[torch.from_numpy(order[fold::FOLDS])] = True
        others = measure.stack([measure.fit(seen[~out].flatten(0, 1), background)])
        scores.append(measure.score(seen[out].flatten(0, 1), others)[:, 0])
    return float(torch.cat(scores).quantile(QUANTILE))


@torch.no_grad()
def encode_pictures(
    base: BaseSam, pictures: Iterable[NDArray[np.uint8]], device: torch.device, config: FeatureConfig
) -> Tensor:
    """Features (n, F), on the CPU, of pictures (H, W, 3) of any sizes."""
    found: list[Tensor] = []
    waiting: list[NDArray[np.uint8]] = []

    def encode() -> None:
        canvas = torch.stack([normalise_and_pad(small, base.spec.image_px) for small in waiting]).to(device)
        sizes = [(small.shape[0], small.shape[1]) for small in waiting]
        found.append(features(FrozenPass(base.sam.image_encoder, canvas), sizes, base.spec.patch_px, config).cpu())
        waiting.clear()

    for picture in pictures:
        waiting.append(resize_image(picture, base.spec.image_px))
        if len(waiting) == TOGETHER:
            encode()
    if waiting:
        encode()
    return torch.cat(found)


def scene_features(base: BaseSam, device: torch.device, config: FeatureConfig) -> Tensor:
    """Features of images at large, for the scorer that needs them: procedural scenes, which belong to no domain."""
    maker = SceneMaker(base.spec.image_px, seed=0)
    return encode_pictures(base, (maker(number).image for number in range(SCENES)), device, config)
