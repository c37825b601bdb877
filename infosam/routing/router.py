"""From what the frozen encoder makes of images to the domain that each belongs to, or to none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from infosam.routing.features import FeatureConfig, features
from infosam.routing.scorers import SCORERS, Scorer, ScorerName, Statistics
from infosam.routing.statistics import DomainStatistics
from infosam.sam.encoder import FrozenPass


@dataclass(frozen=True)
class Route:
    """Where one image goes. `domain` None: to frozen SAM, because it is like no domain that is known here."""

    domain: str | None
    score: float | None  # distance to the nearest domain; None where no domain has statistics
    threshold: float | None  # of that domain
    reason: str


class Router:
    """Chooses among domains by their statistics; any number of them, each on its own."""

    def __init__(self, domains: Mapping[str, DomainStatistics], patch_px: int) -> None:
        """`patch_px`: side of one image token on the canvas."""
        self._domains = dict(domains)
        self._patch_px = patch_px

    @property
    def taps(self) -> set[int]:
        """Numbers of the blocks whose input the router looks at."""
        return {tap for one in self._domains.values() for tap in one.card.features.taps if tap != "neck"}

    def routes(self, frozen: FrozenPass, resized: Sequence[tuple[int, int]]) -> list[Route]:
        """A route for each image of a batch; `resized` as in `features`.

        The domain with the smallest score relative to its threshold, if that is at most 1."""
        if not self._domains:
            reason = "no domain here has statistics to be chosen by"
            return [Route(None, None, None, reason)] * len(resized)
        columns = []
        for group in self._groups:
            seen = features(frozen, resized, self._patch_px, group.features).cpu()
            columns.append(group.scorer.score(seen, group.stacked) / group.thresholds)
        nearest = torch.cat(columns, dim=1).min(dim=1)
        names = [name for group in self._groups for name in group.names]
        pairs = zip(nearest.values.tolist(), nearest.indices.tolist(), strict=True)
        return [self._route(relative, names[index]) for relative, index in pairs]

    @cached_property
    def _groups(self) -> list[_Group]:
        """Made on the first question, not whenever a bundle comes: a pool of hundreds is filled one by one."""
        names: dict[tuple[FeatureConfig, ScorerName], list[str]] = defaultdict(list)
        for name, domain in self._domains.items():
            names[domain.card.features, domain.card.scorer].append(name)
        found = []
        for (config, scorer), some in names.items():
            domains = [self._domains[name] for name in some]
            stacked = SCORERS[scorer].stack([domain.tensors for domain in domains])
            thresholds = torch.tensor([domain.card.threshold for domain in domains])
            found.append(_Group(some, config, SCORERS[scorer], stacked, thresholds))
        return found

    def _route(self, relative: float, name: str) -> Route:
        threshold = self._domains[name].card.threshold
        score = relative * threshold
        if relative <= 1:
            return Route(name, score, threshold, f"{relative:.2f} of the distance that {name} allows")
        reason = f"like no domain here: nearest is {name}, at {relative:.2f} times the distance it allows"
        return Route(None, score, threshold, reason)


@dataclass(frozen=True)
class _Group:
    """Domains that look at the same feature with the same scorer."""

    names: Sequence[str]
    features: FeatureConfig
    scorer: Scorer
    stacked: Statistics
    thresholds: Tensor  # (N,)
