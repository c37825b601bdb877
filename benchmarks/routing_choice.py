"""The validation part of `routing.py`: tap, fitting rule and way to choose, decided before test is looked at.

The candidates are `CANDIDATES`; they and TARGETS, those of the test, were fixed before test was scored with any of
them, after a first look at train and val. Each candidate is fitted on four fifths of the train images of every domain
and asked about the rest, five times, images of one group never on both sides; and fitted on all of train and asked
about val. Nothing of test is opened. The chosen one has the smallest `shortfall`, the largest of what is missing to any
target; of those within TIE the one that misses least over all targets together. (At first the earliest tap won a tie.
It was worse by every target than the next, so the rule was changed, before test was scored.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from infosam.data.card import Split
from infosam.data.store import Store, open_dataset
from infosam.routing.disturbances import WAYS, copies, cropped, framed, reencoded, resized
from infosam.routing.features import FeatureConfig
from infosam.routing.fitting import FOLDS, MOST_IMAGES, QUANTILE, SCORER, encode_pictures, folds, held_out_scores
from infosam.routing.scorers import SCORERS, ScorerName, Statistics
from infosam.sam.weights import BaseSam

Picture = NDArray[np.uint8]
Figures = dict[str, Any]
CPU = torch.device("cpu")
TIE = 0.02
"""Less decides nothing, as in the choice before this one."""
TARGETS = {"accuracy": 0.99, "disturbed": 0.97, "false_accept": 0.05, "false_accept_at_95": 0.05}
SEEDS = 2
"""Draws of the copies that statistics are made of, and of the crops that are asked about."""
TAPS = (0, 1, 2, 3)
"""Later ones were worse in the choice before this one, and cost most of the encoder."""
DISTURBED: Mapping[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "clean": lambda rgb, rng: rgb,
    "jpeg_30": lambda rgb, rng: reencoded(rgb, 30),
    "half_size": lambda rgb, rng: resized(rgb, 0.5),
    "crop_70": lambda rgb, rng: cropped(rgb, 0.7, 0.7, rng),
    "aspect_70": lambda rgb, rng: cropped(rgb, 1.0, 0.7, rng),
    "border_10": lambda rgb, rng: framed(rgb, 0.1),
}
AT_RANDOM = ("crop_70", "aspect_70")


@dataclass(frozen=True)
class Candidate:
    """One way to route."""

    taps: tuple[int, ...] = (2,)
    scorer: ScorerName = "mahalanobis"
    few: bool = False  # fewer copies of larger domains, of kinds at random, as before
    grouped: bool = True  # folds and shrinkage know what belongs together
    every_way: bool = False  # threshold: of the kind of copy that needs the largest
    quantile: float = 0.9
    chooser: Literal["ratio", "likeliest"] = "ratio"
    """Smallest distance relative to the threshold; or the likeliest under the Gaussians, if its threshold allows it."""

    @property
    def name(self) -> str:
        threshold = f"{'way' if self.every_way else 'all'} {self.quantile:.2f}"
        how = ["few copies" if self.few else "every copy", "groups" if self.grouped else "images", threshold]
        return ", ".join([self.scorer, "+".join(map(str, self.taps)), *how, self.chooser])


BEFORE = Candidate(few=True, grouped=False, quantile=0.97)
"""What was shipped until this choice."""
CANDIDATES = (
    BEFORE,
    Candidate(grouped=False, quantile=0.97),
    Candidate(),
    *(Candidate(quantile=quantile) for quantile in (0.93, 0.97)),
    *(Candidate(quantile=quantile, every_way=True) for quantile in (0.9, 0.97)),
    Candidate(chooser="likeliest"),
    Candidate(quantile=0.97, every_way=True, chooser="likeliest"),
    *(Candidate(taps=taps) for taps in ((1,), (3,), (2, 3))),
)
QUICK_CANDIDATES = (BEFORE, Candidate(), Candidate(chooser="likeliest"))
DEFAULT = Candidate(taps=tuple(int(tap) for tap in FeatureConfig().taps), scorer=SCORER, quantile=QUANTILE)
"""What the package ships."""


@dataclass(frozen=True)
class Encoded:
    """A domain's features, all taps. Letters: n images, d draws, 1 + w an original and its copies, F of the feature."""

    groups: Tensor  # (n,) of the train images
    fit: Tensor  # (n, d, 1 + w, F) of the train images
    shown: Mapping[tuple[Split, str], Tensor]  # (n, 1 or d, F), by split and disturbance

    def part(self, taps: Sequence[int]) -> Encoded:
        """Of some taps only."""
        shown = {key: part(one, taps) for key, one in self.shown.items()}
        return replace(self, fit=part(self.fit, taps), shown=shown)


def part(encoded: Tensor, taps: Sequence[int]) -> Tensor:
    """The features of some taps out of those of all: parts have equal shares there, so only the length changes."""
    parts = encoded.unflatten(-1, (len(TAPS), -1))[..., [TAPS.index(tap) for tap in taps], :]
    return F.normalize(parts.flatten(-2), dim=-1)


# ------------------------------------------------------------------------------------------------------- encoding


def encoded(base: BaseSam, folder: Path, kept: Path) -> Encoded:
    """The features of a data set's train and val images, from the file `kept` if it is there."""
    store = open_dataset(folder)
    if not kept.exists():
        arrays = dict(_encode(base, store))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept.with_suffix(".part.npz"), **arrays)
        kept.with_suffix(".part.npz").replace(kept)
    with np.load(kept) as found:
        arrays = {name: found[name] for name in found.files}
    names = [store.group("train", row) or str(row) for row in _rows(store, "train")]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    shown = {
        (split, how): torch.from_numpy(arrays[f"{split}_{how}"]) for split, how in product(_ASKED, DISTURBED)
    }  # fmt: skip
    clean = shown["train", "clean"][:, None].expand(-1, SEEDS, -1, -1)
    fit = torch.cat([clean, torch.from_numpy(arrays["fit"])], dim=2)
    return Encoded(torch.tensor([numbers[name] for name in names]), fit, shown)


_ASKED: tuple[Split, ...] = ("train", "val")


def _encode(base: BaseSam, store: Store) -> Iterator[tuple[str, NDArray[np.float32]]]:
    def seen(split: Split, make: Callable[[Picture, int], list[Picture]]) -> NDArray[np.float32]:
        """(n, pictures of each, F)"""
        rows = _rows(store, split)
        pictures = (one for row in rows for one in make(store.read(split, row).image, row))
        found: NDArray[np.float32] = encode_pictures(base, pictures, CPU, FeatureConfig(taps=TAPS)).numpy()
        return found.reshape(len(rows), -1, found.shape[1])

    def copied(rgb: Picture, row: int) -> list[Picture]:
        return [one for draw in range(SEEDS) for one in copies(rgb, np.random.default_rng([100 + draw, row]))]

    fit = seen("train", copied)
    yield "fit", fit.reshape(len(fit), SEEDS, len(WAYS), -1)
    for split, (how, change) in product(_ASKED, DISTURBED.items()):
        draws = SEEDS if how in AT_RANDOM else 1

        def changed(rgb: Picture, row: int, change: Any = change, draws: int = draws) -> list[Picture]:
            return [change(rgb, np.random.default_rng([1 + 1000 * draw, row])) for draw in range(draws)]

        yield f"{split}_{how}", seen(split, changed)


def _rows(store: Store, split: Split) -> list[int]:
    return [rows[0] for rows in store.images(split)][:MOST_IMAGES]


# -------------------------------------------------------------------------------------------------------- judging


@dataclass(frozen=True)
class Fitted:
    """What candidates of one family know of a domain; they differ in what they make of it."""

    statistics: Statistics
    scores: Tensor  # (n, 1 + w) of the pictures, held out

    def threshold(self, candidate: Candidate) -> float:
        if candidate.every_way:
            return float(self.scores.quantile(candidate.quantile, dim=0).max())
        return float(self.scores.quantile(candidate.quantile))


def fit(family: Candidate, seen: Tensor, groups: Tensor, seed: int) -> Fitted:
    """From features (n, 1 + w, F) of images of `groups` (n,)."""
    if not family.grouped:
        groups = torch.arange(len(seen))
    if family.few:
        count, rng = min(len(WAYS), max(1, 400 // len(seen) - 1)), np.random.default_rng(seed)
        kinds = np.stack([[0, *(1 + rng.permutation(len(WAYS))[:count])] for _ in seen])
        seen = seen[torch.arange(len(seen))[:, None], torch.from_numpy(kinds)]
    again = groups.repeat_interleave(seen.shape[1]) if family.grouped else None
    scores = held_out_scores(seen, groups, seen[:0, 0], family.scorer, seed)
    return Fitted(SCORERS[family.scorer].fit(seen.flatten(0, 1), seen[:0, 0], again), scores)


def decide(candidate: Candidate, distances: Tensor, known: Sequence[Fitted]) -> tuple[Tensor, Tensor]:
    """Of distances (B, N): number of the domain (B,), and distance to it over its threshold (B,)."""
    relative = distances / torch.tensor([one.threshold(candidate) for one in known])
    if candidate.chooser == "ratio":
        found = relative.min(dim=1)
        return found.indices, found.values
    volumes = torch.stack([log_volume(one.statistics) / len(one.statistics["mean"]) for one in known])
    best = (distances.square() + volumes).argmin(dim=1)
    return best, relative.gather(1, best[:, None])[:, 0]


def log_volume(known: Statistics) -> Tensor:
    """Logarithm of the determinant of a covariance, from what is stored of it."""
    rest, lengths = known["rest"].double(), known["directions"].double().square().sum(dim=1)
    return -(1 / rest - lengths).log().sum() + (known["mean"].shape[0] - len(lengths)) * rest.log().sum()


def judge(candidates: Sequence[Candidate], domains: Mapping[str, Encoded], strangers: Tensor) -> dict[str, Figures]:
    """Figures of candidates by name, over all images that were held out. `strangers` (n, F): of no domain, all taps."""
    outcomes = {one.name: _Outcome(list(domains)) for one in candidates}
    families: dict[Candidate, list[Candidate]] = {}
    for one in candidates:
        families.setdefault(Candidate(one.taps, one.scorer, one.few, one.grouped), []).append(one)
    for family, members in families.items():
        seen = {name: one.part(family.taps) for name, one in domains.items()}
        strange = part(strangers, family.taps)
        for known, held in _held_out(family, seen):
            scorer = SCORERS[family.scorer]
            stacked = scorer.stack([one.statistics for one in known])
            far = {key: scorer.score(asked, stacked) for key, asked in held.items()}
            for member in members:
                outcomes[member.name].add(member, known, far, scorer.score(strange, stacked))
    return {name: outcome.figures() for name, outcome in outcomes.items()}


def _held_out(
    family: Candidate, seen: Mapping[str, Encoded]
) -> Iterator[tuple[list[Fitted], dict[tuple[str, str], Tensor]]]:
    """What is known of every domain, and features (B, F) of other images of theirs, by domain and disturbance."""
    for seed in range(SEEDS):
        for fold in range(FOLDS):
            outside = {name: folds(one.groups, 100 + seed) == fold for name, one in seen.items()}
            rest = [(one, ~outside[name]) for name, one in seen.items()]
            known = [fit(family, one.fit[inside, seed], one.groups[inside], seed) for one, inside in rest]
            yield known, _asked(seen, "train", outside)
        known = [fit(family, one.fit[:, seed], one.groups, seed) for one in seen.values()]
        yield known, _asked(seen, "val")


def _asked(
    seen: Mapping[str, Encoded], split: Split, rows: Mapping[str, Tensor] | None = None
) -> dict[tuple[str, str], Tensor]:
    found = {}
    for (name, one), how in product(seen.items(), DISTURBED):
        shown = one.shown[split, how]
        found[name, how] = (shown if rows is None else shown[rows[name]]).flatten(0, 1)
    return found


class _Outcome:
    """What happened to the images that were held out."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._right: dict[tuple[str, str], list[Tensor]] = {}
        self._wrong: dict[str, list[Tensor]] = {}
        self._inside: dict[str, list[Tensor]] = {name: [] for name in names}
        self._outside: dict[str, list[Tensor]] = {name: [] for name in names}
        self._strange: list[Tensor] = []

    def add(
        self, candidate: Candidate, known: list[Fitted], far: Mapping[tuple[str, str], Tensor], strange: Tensor
    ) -> None:
        """`far`: distances (B, N) by domain and disturbance; `strange`: (B, N)."""
        for (name, how), distances in far.items():
            number = self._names.index(name)
            found, distance = decide(candidate, distances, known)
            self._right.setdefault((how, name), []).append((found == number) & (distance <= 1))
            self._wrong.setdefault(how, []).append((found != number) & (distance <= 1))
        for number, name in enumerate(self._names):
            kept = [index for index in range(len(known)) if index != number]
            others = [known[index] for index in kept]
            for other in self._names:
                distance = decide(candidate, far[other, "clean"][:, kept], others)[1]
                (self._outside if other == name else self._inside)[name].append(distance)
        self._strange.append(decide(candidate, strange, known)[1])

    def figures(self) -> Figures:
        accuracy = {
            how: _share([one for (kind, _), some in self._right.items() if kind == how for one in some])
            for how in DISTURBED
        }
        limits = {name: torch.cat(self._inside[name]).quantile(0.95) for name in self._names}
        found: Figures = {
            "accuracy": accuracy["clean"],
            "disturbed": min(accuracy.values()),
            "wrong": _share(self._wrong["clean"]),
            "false_accept": _share([one <= 1 for some in self._outside.values() for one in some]),
            "false_accept_at_95": _share([one <= limits[name] for name, some in self._outside.items() for one in some]),
            "photographs_accepted": _share([one <= 1 for one in self._strange]),
            **{f"accuracy_{how}": value for how, value in accuracy.items() if how != "clean"},
        }
        found["shortfall"] = shortfall(found)
        return {name: round(value, 4) for name, value in found.items()} | {
            "accuracy_per_domain": {
                name: {how: round(_share(self._right[how, name]), 3) for how in DISTURBED} for name in self._names
            }
        }


def misses(figures: Mapping[str, float]) -> list[float]:
    """What is missing to each target, 0 where it is met."""
    more, less = ("accuracy", "disturbed"), ("false_accept", "false_accept_at_95")
    return [max(0.0, TARGETS[key] - figures[key]) for key in more] + [
        max(0.0, figures[key] - TARGETS[key]) for key in less
    ]


def shortfall(figures: Mapping[str, float]) -> float:
    """The largest of what is missing to the targets."""
    return max(misses(figures))


def choose(figures: Mapping[str, Figures]) -> str:
    """The name of the chosen candidate."""
    best = min(one["shortfall"] for one in figures.values())
    good = [one for one in CANDIDATES if one.name in figures and figures[one.name]["shortfall"] <= best + TIE]
    return min(good, key=lambda one: (sum(misses(figures[one.name])), len(one.taps), max(one.taps))).name


def _share(values: Sequence[Tensor]) -> float:
    return float(torch.cat(list(values)).float().mean())
