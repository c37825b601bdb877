"""How far a feature lies from those of a domain. A domain's statistics are fitted from its own images alone.

Letters in shapes: n images of a domain, N domains, B images asked about, F of the feature, k directions or neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

Statistics = Mapping[str, Tensor]
"""What a scorer needs of a domain, by name; float32."""

BACKGROUND = "background."
MOST_DIRECTIONS = 64
"""Of a covariance; more cost memory and time in every domain."""
FAR = 1e3
EXACT = "donot_use_mm_for_euclid_dist"  # the faster way takes the root of a difference of nearly equal numbers


class Scorer(Protocol):
    """One measure of distance."""

    def fit(self, features: Tensor, background: Tensor, groups: Tensor | None = None) -> Statistics:
        """Statistics of the domain whose images have `features` (n, F), n >= 2. `background` (m, F) are images of no
        domain, for scorers that compare with images at large; the same for all domains. `groups` (n,) are numbers:
        equal ones show the same thing again, and tell no more together than one of them; None: all differ."""
        ...

    def stack(self, domains: Sequence[Statistics]) -> Statistics:
        """Statistics of N domains with a first axis of that length, so that hundreds are scored at once."""
        ...

    def score(self, features: Tensor, stacked: Statistics) -> Tensor:
        """(B, F) -> (B, N): how far each lies from each domain, from 0 on; its scale is the scorer's own."""
        ...


class Mahalanobis:
    """Mahalanobis distance on features of unit length (Mahalanobis++, Mueller and Hein 2025, arXiv 2505.18032), with a
    covariance per domain, shrunk after Ledoit and Wolf (2004); divided by the root of F, so about 1 inside.

    Only the MOST_DIRECTIONS of largest variance are kept; all others share the mean of what is left, as in the
    probabilistic principal components of Tipping and Bishop (1999)."""

    def fit(self, features: Tensor, background: Tensor, groups: Tensor | None = None) -> Statistics:
        """mean (F,), directions (k, F) divided by their deviations, rest (1,): the variance of all others."""
        mean, variances, directions, rest = shrunk(features.double(), groups)
        kept, width = min(MOST_DIRECTIONS, len(variances)), features.shape[1]
        if kept < width:
            rest = (variances[kept:].sum() + (width - len(variances)) * rest) / (width - kept)
        scaled = directions[:kept] * (1 / rest - 1 / variances[:kept]).clamp(min=0).sqrt()[:, None]
        return {"mean": mean.float(), "directions": scaled.float().contiguous(), "rest": rest.reshape(1).float()}

    def stack(self, domains: Sequence[Statistics]) -> Statistics:
        """See Scorer. Directions of length 0 fill up: they change nothing."""
        return _stacked(domains, directions=0.0)

    def score(self, features: Tensor, stacked: Statistics) -> Tensor:
        """See Scorer."""
        return _squared(features, stacked).clamp(min=0).sqrt()


class RelativeMahalanobis:
    """Half the squared Mahalanobis distance to the domain without that to images at large (Ren et al. 2021, arXiv
    2106.09022), which are those of the background; exponentiated, so that it is positive."""

    def fit(self, features: Tensor, background: Tensor, groups: Tensor | None = None) -> Statistics:
        """As `Mahalanobis`, and the same of the background, with names that begin with `background.`."""
        common = Mahalanobis().fit(background, background)
        own = {f"{BACKGROUND}{name}": tensor for name, tensor in common.items()}
        return {**Mahalanobis().fit(features, background, groups), **own}

    def stack(self, domains: Sequence[Statistics]) -> Statistics:
        """See Scorer."""
        return _stacked(domains, **{"directions": 0.0, f"{BACKGROUND}directions": 0.0})

    def score(self, features: Tensor, stacked: Statistics) -> Tensor:
        """See Scorer."""
        common = {name.removeprefix(BACKGROUND): each for name, each in stacked.items() if name.startswith(BACKGROUND)}
        return ((_squared(features, stacked) - _squared(features, common)) / 2).clamp(-60, 60).exp()


class NearestNeighbours:
    """Distance to the k-th nearest image of the domain (Sun et al. 2022, arXiv 2204.06507). Its statistics are the
    features of single images."""

    def __init__(self, k: int = 3) -> None:
        self._k = k

    def fit(self, features: Tensor, background: Tensor, groups: Tensor | None = None) -> Statistics:
        """features (n, F); of fewer than k images the last one several times."""
        missing = max(0, self._k - len(features))
        return {"features": torch.cat([features, features[-1:].expand(missing, -1)]).float()}

    def stack(self, domains: Sequence[Statistics]) -> Statistics:
        """See Scorer. Images that are far from everything fill up."""
        return _stacked(domains, features=FAR)

    def score(self, features: Tensor, stacked: Statistics) -> Tensor:
        """See Scorer."""
        distances = torch.cdist(features.float()[None], stacked["features"], compute_mode=EXACT)
        return distances.kthvalue(self._k, dim=2).values.T


def shrunk(features: Tensor, groups: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean (F,), and the covariance of `features` (n, F) shrunk towards its mean variance by the share that Ledoit and
    Wolf (2004, section 3) find best: variances (k,) along orthonormal directions (k, F), and the one of all others.

    Their share rests on how much single images differ from the covariance; here `groups` (n,) do, see `Scorer.fit`:
    else ten copies of an image would pass for ten images, and too little would be shrunk."""
    count, width = features.shape
    mean = features.mean(dim=0)
    centred = features - mean
    _, lengths, directions = torch.linalg.svd(centred, full_matrices=False)
    variances = lengths.square() / count
    average = variances.sum() / width
    spread = (variances.square().sum() - width * average.square()) / width
    noise = _noise(centred @ directions.T, variances, groups) / width
    share = 1.0 if spread <= 0 else float((noise / spread).clamp(0, 1))
    floor = average * 1e-6 + 1e-12  # of a domain whose images are all the same
    return mean, (1 - share) * variances + share * average + floor, directions, share * average + floor


def _noise(along: Tensor, variances: Tensor, groups: Tensor | None) -> Tensor:
    """Expected squared error of the covariance diag(variances) (k,) of `along` (n, k), from how far the groups' own
    second moments M lie from it: the sum of (share of the images)^2 |M - diag(variances)|^2."""
    if groups is None:
        fourth = along.square().sum(dim=1).square().sum() / len(along)
        return (fourth - variances.square().sum()) / len(along)
    total = variances.new_zeros(())
    for group in groups.unique():
        some = along[groups == group]
        own = (some @ some.T).square().sum() / len(some) ** 2
        common = (some.square().mean(dim=0) * variances).sum()
        total += (len(some) / len(along)) ** 2 * (own - 2 * common + variances.square().sum())
    return total


def _squared(features: Tensor, stacked: Statistics) -> Tensor:
    """Squared Mahalanobis distances (B, N), divided by F."""
    centred = features.float() - stacked["mean"][:, None]  # (N, B, F)
    rest = centred.square().sum(dim=2) / stacked["rest"]
    along = (centred @ stacked["directions"].transpose(1, 2)).square().sum(dim=2)
    return ((rest - along) / features.shape[1]).T


def _stacked(domains: Sequence[Statistics], **filled_with: float) -> Statistics:
    """Tensors of equal names on top of each other; rows of `filled_with` make those of these names equally long."""
    result = {}
    for name in domains[0]:
        tensors = [domain[name] for domain in domains]
        if name in filled_with:
            rows = max(len(tensor) for tensor in tensors)
            missing = [torch.full((rows - len(one), one.shape[1]), filled_with[name]) for one in tensors]
            tensors = [torch.cat(pair) for pair in zip(tensors, missing, strict=True)]
        result[name] = torch.stack(tensors)
    return result


ScorerName = Literal["mahalanobis", "relative", "neighbours"]
SCORERS: Mapping[ScorerName, Scorer] = {
    "mahalanobis": Mahalanobis(),
    "relative": RelativeMahalanobis(),
    "neighbours": NearestNeighbours(),
}
