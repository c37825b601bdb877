"""The validation part of `routing.py`: which taps and which scorer, decided before anything is looked at on test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from infosam.data.card import Split
from infosam.data.dataset import SegmentationDataset
from infosam.routing.disturbances import cropped, framed, reencoded, resized
from infosam.routing.features import FeatureConfig
from infosam.routing.fitting import SCORER, TrainingPictures, encode_pictures, statistics_of
from infosam.routing.scorers import SCORERS, ScorerName
from infosam.routing.statistics import DomainStatistics
from infosam.sam.weights import BaseSam
from infosam.synthetic.scenes import SceneMaker

Picture = NDArray[np.uint8]
CPU = torch.device("cpu")
TIE = 0.02
"""About one validation image of the five shared sets: less decides nothing."""
DISTURBED: Mapping[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "clean": lambda rgb, rng: rgb,
    "jpeg_30": lambda rgb, rng: reencoded(rgb, 30),
    "half_size": lambda rgb, rng: resized(rgb, 0.5),
    "crop_70": lambda rgb, rng: cropped(rgb, 0.7, 0.7, rng),
    "aspect_70": lambda rgb, rng: cropped(rgb, 1.0, 0.7, rng),
    "border_10": lambda rgb, rng: framed(rgb, 0.1),
}


@dataclass(frozen=True)
class Candidate:
    """One way to route."""

    features: FeatureConfig
    scorer: ScorerName

    @property
    def name(self) -> str:
        taps = "+".join(map(str, self.features.taps))
        return " ".join([self.scorer, taps, *["spread"] * self.features.spread])


@dataclass(frozen=True)
class Encoded:
    """Every part that any candidate uses, of all pictures of a domain."""

    pictures: TrainingPictures
    train: Tensor
    shown: Mapping[tuple[Split, str], Tensor]  # split, disturbance


def everything(depth: int) -> FeatureConfig:
    """All taps; the features of any candidate are parts of these."""
    return FeatureConfig(taps=(*range(depth + 1), "neck"), spread=True)


def candidates(depth: int, *, quick: bool) -> list[Candidate]:
    """Single taps by every scorer; by the first one also without deviations, and neighbours together. Quick: one tap by
    every scorer, and what the package ships."""
    if quick:
        return [Candidate(FeatureConfig(), SCORER), *(Candidate(FeatureConfig(taps=(1,)), name) for name in SCORERS)]
    singles = everything(depth).taps
    found = [Candidate(FeatureConfig(taps=(tap,)), scorer) for scorer, tap in product(SCORERS, singles)]
    found += [Candidate(FeatureConfig(taps=(tap,), spread=False), SCORER) for tap in singles]
    return found + [Candidate(FeatureConfig(taps=(tap, tap + 1)), SCORER) for tap in range(1, depth)]


def part(encoded: Tensor, config: FeatureConfig, base: BaseSam) -> Tensor:
    """The features of `config` out of those of `everything`: parts have equal shares there, so only the length
    changes."""
    widths = [base.spec.width] * (base.spec.depth + 1) + [base.spec.decoder_width]
    starts = np.concatenate([[0], np.cumsum([2 * width for width in widths])])
    columns: list[int] = []
    for tap in config.taps:
        index = base.spec.depth + 1 if tap == "neck" else tap
        width = widths[index]
        columns += range(starts[index], starts[index] + (2 * width if config.spread else width))
    return F.normalize(encoded[:, columns], dim=1)


def encode_domain(base: BaseSam, datasets: Mapping[Split, SegmentationDataset]) -> Encoded:
    """Training pictures with copies, and every image of the other splits under each disturbance."""
    config = everything(base.spec.depth)
    pictures = TrainingPictures.choose(datasets["train"])
    assert pictures is not None, "too few training images"
    shown: dict[tuple[Split, str], Tensor] = {}
    for split, dataset in datasets.items():
        for name in DISTURBED if split != "train" else ("clean",):
            changed = (
                DISTURBED[name](dataset.sample(row).image, np.random.default_rng([1, row]))
                for row in range(len(dataset))
            )
            shown[split, name] = encode_pictures(base, changed, CPU, config)
    return Encoded(pictures, encode_pictures(base, pictures, CPU, config), shown)


def fit_all(
    base: BaseSam, encoded: Mapping[str, Encoded], candidate: Candidate, background: Tensor
) -> dict[str, DomainStatistics]:
    """Statistics of every domain, each on its own."""
    config = candidate.features
    return {
        name: statistics_of(
            one.pictures, part(one.train, config, base), part(background, config, base), config=config,
            scorer=candidate.scorer, canvas_px=base.spec.image_px,
        )
        for name, one in encoded.items()
    }  # fmt: skip


def relative(known: Mapping[str, DomainStatistics], features: Tensor) -> tuple[Tensor, list[str]]:
    """Score over threshold (B,) of the nearest domain, and its name."""
    scores = torch.stack([one.scores(features) / one.card.threshold for one in known.values()], dim=1)
    nearest = scores.min(dim=1)
    return nearest.values, [list(known)[index] for index in nearest.indices.tolist()]


def judge(base: BaseSam, encoded: Mapping[str, Encoded], candidate: Candidate, background: Tensor) -> dict[str, float]:
    """Validation figures of one candidate. Abstaining counts as wrong.

    accuracy: on clean images; disturbed: the worst of the disturbances. Leave one domain out (its train and val
    images): false_accept at the thresholds as they are, false_accept_95 with all of them scaled alike so that 95 % of
    the val images of the other domains are accepted."""
    known = fit_all(base, encoded, candidate, background)
    right: dict[str, list[bool]] = {}
    inside: list[Tensor] = []
    for name, one in encoded.items():
        for (split, disturbance), features in one.shown.items():
            if split == "val":
                scores, nearest = relative(known, part(features, candidate.features, base))
                found = zip(scores.tolist(), nearest, strict=True)
                right.setdefault(disturbance, []).extend(score <= 1 and found == name for score, found in found)
                inside += [scores] if disturbance == "clean" else []
    outside = []
    for name, one in encoded.items():
        others = {other: statistics for other, statistics in known.items() if other != name}
        foreign = torch.cat(
            [features for (split, how), features in one.shown.items() if split != "test" and how == "clean"]
        )
        outside.append(relative(others, part(foreign, candidate.features, base))[0])
    accepted_95 = float(torch.cat(inside).quantile(0.95))
    shares = {name: float(np.mean(values)) for name, values in right.items()}
    return {
        "accuracy": shares["clean"],
        "disturbed": min(shares.values()),
        "false_accept": float((torch.cat(outside) <= 1).float().mean()),
        "false_accept_95": float((torch.cat(outside) <= accepted_95).float().mean()),
    }


def judge_all(
    base: BaseSam, encoded: Mapping[str, Encoded], *, scenes: int, quick: bool
) -> dict[str, dict[str, float]]:
    """Validation figures of all candidates by name."""
    maker = SceneMaker(base.spec.image_px, seed=0)
    pictures = [maker(number).image for number in range(scenes)]
    background = encode_pictures(base, pictures, CPU, everything(base.spec.depth))
    figures = {}
    for candidate in candidates(base.spec.depth, quick=quick):
        found = judge(base, encoded, candidate, background)
        figures[candidate.name] = {name: round(value, 4) for name, value in found.items()}
    return figures


def choose(figures: Mapping[str, Mapping[str, float]], depth: int, *, quick: bool) -> list[str]:
    """Names of the candidates, the chosen one first, by accuracy + disturbed - false_accept - false_accept_95. Of those
    within TIE of the best, the one whose taps end earlier, which is cheaper, then the one of fewer taps."""
    worth = {
        name: one["accuracy"] + one["disturbed"] - one["false_accept"] - one["false_accept_95"]
        for name, one in figures.items()
    }
    best = max(worth.values())

    def order(candidate: Candidate) -> tuple[bool, float, int, float]:
        taps = candidate.features.taps
        last = max(depth + 1 if tap == "neck" else tap for tap in taps)
        value = worth[candidate.name]
        return (False, last, len(taps), -value) if value > best - TIE else (True, -value, 0, 0.0)

    return [candidate.name for candidate in sorted(candidates(depth, quick=quick), key=order)]
