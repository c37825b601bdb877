"""Image-mask pairs as a source lists them, before their files are opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infosam.data.card import Split

SHOWN_PROBLEMS = 20
PICTURE_SUFFIXES = {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
NO_CELLS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Labels:
    """A part of a mask file: what its values stand for is decided on all values of the file."""

    values: NDArray[np.generic]  # (h, w)
    whole: tuple[float, ...]  # sorted distinct values of the file


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One image and one mask of it, as a reader found them. An image with several masks is several of these.

    `image` and `mask` name the two in messages, ids and the data set. They are files, unless a source keeps pictures
    in another way: then `image_content` gives the encoded image or its pixels, (H, W) or (H, W, 3), and `mask_content`
    an encoded mask, its pixels (H, W), or the values of a part; both may raise `pixels.Unusable`."""

    image: Path
    mask: Path
    split: Split | None  # None: the source does not say
    row: str  # where it is listed, for messages: "train.csv:12" or the file's name
    group: str | None = None  # patient, video or scene; never in two splits
    image_content: Callable[[], bytes | NDArray[np.uint8]] | None = None
    mask_content: Callable[[], bytes | NDArray[np.bool_] | Labels] | None = None
    # Other columns of its row.
    cells: Mapping[str, str] = field(default_factory=lambda: NO_CELLS, compare=False, repr=False)

    @property
    def key(self) -> str:
        """What must stay together in one split."""
        return f"group {self.group}" if self.group else f"image {self.image.as_posix()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair(Listed):
    """A pair whose split is settled."""

    split: Split


@dataclass(frozen=True, kw_only=True)
class MaskChoice:
    """Which pixels of a mask are the object, and whether each object becomes a row of its own."""

    classes: tuple[str, ...] = ()  # values, colours (#rrggbb) or, in COCO, names; several are united
    instances: bool = False  # a row per object: per annotation, per value of a label map, or per connected region


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """How files that are more than one 8-bit picture become pictures: bands, brightness, slices and tiles."""

    bands: tuple[int, ...] = ()  # counted from 1: one for grey, three for red, green and blue; none: by the file
    window: tuple[float, float] | None = None  # centre and width in the file's unit; None: by the file
    axis: Literal["auto", "axial", "coronal", "sagittal"] = "auto"
    slices: Literal["labelled", "all"] = "labelled"
    tile: int | None = None  # side in px; None: pictures stay whole
    overlap: int = 0  # px that neighbouring tiles share


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a user may say about a source."""

    choice: MaskChoice = field(default_factory=MaskChoice)
    parts: PartOptions = field(default_factory=PartOptions)
    image_column: str = "image"
    mask_column: str = "label"
