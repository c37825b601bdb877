"""What the server says: the bodies of its answers, and what stands behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from infosam.prompt_files import ImagePrompt


@dataclass(frozen=True, kw_only=True)
class Order:
    """One picture (H, W, 3) to segment. `domain`: a name, or `AUTO` or `PLAIN`."""

    rgb: NDArray[np.uint8]
    prompt: ImagePrompt | None
    domain: str


@dataclass(frozen=True, kw_only=True)
class Made:
    """A mask (H, W) and how it came about; see `Choice`."""

    mask: NDArray[np.bool_]
    domain: str | None
    version: str | None
    score: float | None
    threshold: float | None
    reason: str


class Segmenter(Protocol):
    """Whoever makes the masks."""

    @property
    def ready(self) -> bool:
        """Whether it can work at all."""

    def offered(self) -> list[Offer]:
        """The domains it knows now."""

    async def segment(self, order: Order) -> Made:
        """Raises UnknownDomain, DataError for a prompt outside the picture, or UserError for an adapter that cannot be
        used now."""


class Offer(BaseModel):
    """A domain that can be asked for by name, or that has a champion which cannot be used."""

    domain: str
    version: str | None = Field(description="Number of the champion in use; null for a bundle's folder, or if none is.")
    automatic: bool = Field(
        description="Whether pictures can be recognised as this domain; needs statistics in the bundle."
    )
    problem: str | None = Field(description="Why the champion of now is not in use, if it is not.")


class Offers(BaseModel):
    """Everything that can be asked for."""

    domains: list[Offer]


class Mask(BaseModel):
    """A binary mask as COCO run lengths (compressed, column by column)."""

    size: Annotated[list[int], Field(min_length=2, max_length=2, description="Height and width in pixels.")]
    counts: str


class Choice(BaseModel):
    """Which adapter was used, and why."""

    domain: str | None = Field(description="The adapter's domain; null where plain SAM was used.")
    version: str | None = Field(description="Version of the champion that made the mask, if it has one.")
    score: float | None = Field(description="Distance to the nearest domain; null if nobody asked for a choice.")
    threshold: float | None = Field(description="The largest score that this domain accepts.")
    reason: str = Field(description="The choice in a sentence.")


class Segmentation(Choice):
    """Answer of /v1/segment."""

    area: float = Field(ge=0, le=1, description="Share of the picture that the mask covers.")
    mask: Mask


class Problem(BaseModel):
    """Any answer that is no success."""

    detail: str


class Health(BaseModel):
    """Answer of /healthz."""

    status: str
    domains: int
