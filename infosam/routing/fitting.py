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
from infosam.routing.disturbances import WAYS, copies
from infosam.routing.features import FeatureConfig, features
from infosam.routing.scorers import SCORERS, ScorerName
from infosam.routing.statistics import DomainStatistics, RoutingCard
from infosam.sam.encoder import FrozenPass
from infosam.sam.weights import BaseSam
from infosam.synthetic.scenes import SceneMaker

MIN_IMAGES = 20
"""Of fewer images a fifth says nothing about how far the next image may lie."""
MOST_IMAGES = 200
"""With the copies 1200 pictures go through the blocks below the tap."""
FOLDS = 5
QUANTILE = 0.9
"""Share of the held-out pictures that the threshold accepts. CA-SAM (arXiv 2511.17201) takes 0.97, of images at random;
of groups that are held out as a whole, the rest lies so far off that strangers do not lie further."""
SCORER: ScorerName = "mahalanobis"
"""Chosen by validation, as the taps of `FeatureConfig` and QUANTILE; see docs/routing.md."""
SCENES = 100
TOGETHER = 8


@dataclass(frozen=True)
class TrainingPictures:
    """What statistics are made of: some images of a split, each followed by a copy for each way to disturb it."""

    dataset: SegmentationDataset
    rows: Sequence[int]
    groups: Tensor
    """(n,) of each image: equal numbers show the same thing, as frames of one video do; see `Store.group`."""
    seed: int

    @classmethod
    def choose(cls, dataset: SegmentationDataset, seed: int = 0) -> TrainingPictures | None:
        """At most MOST_IMAGES of a split; None if it has fewer than MIN_IMAGES."""
        store = dataset.store
        found = [rows[0] for rows in store.images(dataset.split)]
        if len(found) < MIN_IMAGES:
            return None
        chosen = sorted(np.random.default_rng(seed).permutation(found)[:MOST_IMAGES].tolist())
        names = [store.group(dataset.split, row) or row for row in chosen]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return cls(dataset, chosen, torch.tensor([numbers[name] for name in names]), seed)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for row in self.rows:
            rgb = self.dataset.sample(row).image
            yield rgb
            yield from copies(rgb, np.random.default_rng([self.seed, row]))

    def __len__(self) -> int:
        return len(self.rows) * (1 + len(WAYS))


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
    by_image = seen.unflatten(0, (len(pictures.rows), -1))
    scores = held_out_scores(by_image, pictures.groups, background, scorer, pictures.seed)
    card = RoutingCard(
        features=config,
        scorer=scorer,
        threshold=float(scores.quantile(QUANTILE)),
        images=len(pictures.rows),
        copies=len(WAYS),
        seed=pictures.seed,
        canvas_px=canvas_px,
    )
    return DomainStatistics(card, SCORERS[scorer].fit(seen, background, of_copies(pictures.groups, by_image)))


def of_copies(groups: Tensor, seen: Tensor) -> Tensor:
    """(n,) of images -> (n * copies,) of the pictures `seen` (n, copies, F)."""
    return groups.repeat_interleave(seen.shape[1])


def held_out_scores(seen: Tensor, groups: Tensor, background: Tensor, scorer: ScorerName, seed: int) -> Tensor:
    """(n, copies) that pictures `seen` (n, copies, F) of `groups` (n,) get from statistics of the other folds, in which
    nothing of their group is."""
    measure, scores = SCORERS[scorer], torch.empty(seen.shape[:2])
    fold_of = folds(groups, seed)
    for fold in fold_of.unique():
        out = fold_of == fold
        known = measure.fit(seen[~out].flatten(0, 1), background, of_copies(groups[~out], seen))
        found = measure.score(seen[out].flatten(0, 1), measure.stack([known]))[:, 0]
        scores[out] = found.unflatten(0, (-1, seen.shape[1]))
    return scores


def folds(groups: Tensor, seed: int) -> Tensor:
    """A fold for each image (n,), FOLDS in all or as many as there are groups, about equally large: groups at random,
    large ones first, each to the fold that is smallest yet. Where all images are one group, each stands alone."""
    if len(groups.unique()) == 1:
        groups = torch.arange(len(groups))
    numbers, sizes = groups.unique(return_counts=True)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(numbers)))
    order = order[sizes[order].argsort(descending=True, stable=True)]
    held, chosen = torch.zeros(min(FOLDS, len(numbers)), dtype=torch.long), torch.empty_like(groups)
    for index in order.tolist():
        fold = int(held.argmin())
        held[fold] += sizes[index]
        chosen[groups == numbers[index]] = fold
    return chosen


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
