"""What a bundle says about the images of its domain, for the router: a safetensors file, and a field of the card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from infosam.checkpoint import save_tensors
from infosam.errors import BundleError
from infosam.routing.features import FeatureConfig
from infosam.routing.scorers import SCORERS, ScorerName
from infosam.strict import Strict

ROUTING_FILE = "routing.safetensors"
CARD_FIELD = "routing"


class RoutingCard(Strict):
    """The card's field `routing`."""

    features: FeatureConfig
    scorer: ScorerName
    threshold: float = Field(gt=0)
    """Largest score that is the domain's."""
    images: int = Field(ge=2)
    """Training images that the statistics were made of."""
    copies: int = Field(ge=0)
    """Disturbed copies of each of them."""
    seed: int
    """Of the choice of images, copies and folds."""
    canvas_px: int = Field(ge=1)


@dataclass(frozen=True)
class DomainStatistics:
    """What the router knows about one domain. Stands alone: no other domain was looked at."""

    card: RoutingCard
    tensors: Mapping[str, Tensor]

    def scores(self, features: Tensor) -> Tensor:
        """(B, F) -> (B,): distances, of which those up to the threshold are the domain's."""
        scorer = SCORERS[self.card.scorer]
        return scorer.score(features, scorer.stack([self.tensors]))[:, 0]

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes the tensors into a bundle's folder; returns the card's field."""
        save_tensors(self.tensors, folder / ROUTING_FILE)
        return self.card.model_dump(mode="json")


def read_statistics(bundle: Path, card: Mapping[str, Any], canvas_px: int) -> DomainStatistics | None:
    """The statistics in a bundle's folder with that card, None if it has none: it can then be used by name, and is
    never chosen by itself.

    Raises BundleError if they are broken, or were made on another canvas."""
    field = card.get(CARD_FIELD)
    if field is None:
        return None
    try:
        described = RoutingCard.model_validate(field)
        tensors = load_file(bundle / ROUTING_FILE)
    except (ValidationError, SafetensorError, OSError) as error:
        raise BundleError(f"{bundle}: what it says for routing cannot be read: {error}; fetch it again") from error
    if described.canvas_px != canvas_px:
        raise BundleError(
            f"{bundle}: made to be chosen on a canvas of {described.canvas_px} px, the base here has {canvas_px} px"
        )
    return DomainStatistics(described, tensors)
