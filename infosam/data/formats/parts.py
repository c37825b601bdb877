"""Makes pairs of the slices of volumes and the tiles of scenes that a reader listed as whole files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infosam.data.formats.contract import Box, Stack, shape_text
from infosam.data.formats.levels import levels_of, to_8_bit
from infosam.data.formats.names import without_suffix
from infosam.data.formats.shelf import Shelf
from infosam.data.formats.table import Source, image_source, mask_source, same_place
from infosam.data.formats.tiles import boxes
from infosam.data.masks import Unusable, distinct, object_values
from infosam.data.pairs import Labels, Listed, PartOptions, ReadOptions
from infosam.data.readers.contract import Listing
from infosam.errors import ConfigError, DataError

MAX_VALUES = 65_536  # different ones in a mask; more are no labels
Place = tuple[int, Box]  # number of the picture, and what part of it


def in_parts(listing: Listing, options: ReadOptions, problems: list[str]) -> Listing:
    """The listing with slices and tiles instead of volumes and scenes; ordinary pictures stay as they are.

    Images are not decoded; masks are, to leave out slices and tiles without object unless `options` keep all. Raises
    DataError if a library is missing, an option has no effect, or nothing is left."""
    cutter = _Cutter(listing.root, options)
    listed: list[Listed] = []
    for pair in listing.listed:
        try:
            listed += cutter.parts_of(pair)
        except Unusable as problem:
            problems.append(f"{pair.row}: {problem}")
    if not problems:
        cutter.check_options()
        if listing.listed and not listed:
            raise DataError(
                f"no slice or tile has an object, of {cutter.blank} looked at; look at the values in the masks, choose "
                "with --class, or keep them with --slices all"
            )
    return replace(listing, listed=listed, notes=(*listing.notes, *cutter.notes()))


@dataclass
class _Cutter:
    """Cuts the files of one listing, and counts what it did."""

    root: Path
    options: ReadOptions
    shelf: Shelf = field(default_factory=Shelf)
    blank: int = 0
    kept: int = 0
    used: set[str] = field(default_factory=set)
    planes: Counter[str] = field(default_factory=Counter)

    def parts_of(self, pair: Listed) -> Iterator[Listed]:
        """The pairs that come of one; itself if it is ordinary. Raises Unusable."""
        image_from = image_source(pair, self.options)
        image = None if image_from is None else self.shelf.stack(image_from.key, image_from.open)
        mask_from = mask_source(pair, self.options, image)
        if mask_from is None:
            yield pair
            return
        mask = self.shelf.stack(mask_from.key, mask_from.open)
        tile = self.options.parts.tile
        if image is None or image_from is None:
            places: list[tuple[Place, Place]] = [((0, box), (0, box)) for box in boxes(mask.size, None, 0)]
            self._check_fit(pair, mask, [0], mask, mask_from)
            cut = False
        else:
            chosen = [*range(image.count)] if image_from.chosen is None else [*image_from.chosen]
            self._check_fit(pair, image, chosen, mask, mask_from)
            self.used |= image.uses
            self.planes[image.plane if image.plane in ("axial", "coronal", "sagittal") else ""] += 1
            parts = boxes(image.size, tile, self.options.parts.overlap)
            taken = [*range(mask.count)] if mask_from.chosen is None else [*mask_from.chosen]
            places = [((left, box), (right, box)) for left, right in zip(chosen, taken, strict=True) for box in parts]
            cut = image.sliced or len(parts) > 1
        _check_area(pair, places)
        whole, labelled = self._labelled(pair, mask, [place for _, place in places])
        for (seen, drawn), has_object in zip(places, labelled, strict=True):
            if cut and not has_object and self.options.parts.slices == "labelled":
                self.blank += 1
                continue
            self.kept += cut
            yield self._part(pair, image_from, image, mask_from, seen, drawn, whole)

    def _check_fit(self, pair: Listed, image: Stack, chosen: Sequence[int], mask: Stack, mask_from: Source) -> None:
        amount = mask.count if mask_from.chosen is None else len(mask_from.chosen)
        sizes = [(*one.size[::-1], *([number] if max(amount, len(chosen)) > 1 else [])) for one, number in (
            (mask, amount), (image, len(chosen)),
        )]  # fmt: skip
        if sizes[0] != sizes[1]:
            shapes = f"the mask is {shape_text(sizes[0])} px, its image {pair.image.name} {shape_text(sizes[1])}"
            raise Unusable(f"{pair.mask}: {shapes}; export the mask at the size of the image", "size")
        if not same_place(image, mask):
            reason = f"by their own coordinates the mask lies elsewhere than {pair.image.name}"
            raise Unusable(f"{pair.mask}: {reason}; save it on the grid of the image", "size")

    def _labelled(self, pair: Listed, mask: Stack, places: Sequence[Place]) -> tuple[tuple[float, ...], list[bool]]:
        """All values of a mask, and which of its parts have an object."""
        found: list[frozenset[float]] = []
        whole: set[float] = set()
        sample = mask.values(*places[0])
        for place in places:
            values = mask.values(*place)
            found.append(frozenset(distinct(values)))
            whole |= found[-1]
            if len(whole) > MAX_VALUES:
                raise Unusable(
                    f"{pair.mask}: more than {MAX_VALUES:,} different values, so it is no mask", "mask-values"
                )
        if sample.dtype == np.bool_:
            return (0.0, 1.0), [1.0 in values for values in found]
        chosen = set(object_values(sorted(whole), self.options.choice, pair.mask, sample))
        return tuple(sorted(whole)), [bool(values & chosen) for values in found]

    def _part(
        self,
        pair: Listed,
        image_from: Source | None,
        image: Stack | None,
        mask_from: Source,
        seen: Place,
        drawn: Place,
        whole: tuple[float, ...],
    ) -> Listed:
        content = partial(_mask_of, self.shelf, mask_from, drawn, whole)
        if image is None or image_from is None:
            return replace(pair, mask_content=content)
        name = _name(image, seen, self.options.parts.tile)
        group = image.group or without_suffix(pair.image).relative_to(self.root).as_posix()
        return replace(
            pair,
            image=_named(pair.image, name),
            mask=_named(pair.mask, name),
            row=f"{pair.row}, {name.replace('_', ' ')}" if name else pair.row,
            group=pair.group or group,
            image_content=partial(_picture_of, self.shelf, image_from, seen, self.options.parts.window),
            mask_content=content,
        )

    def check_options(self) -> None:
        """Raises ConfigError if the user chose what concerns no file."""
        plain, given = PartOptions(), self.options.parts
        for one in fields(PartOptions):
            needless = one.name not in self.used and one.name in ("bands", "window", "axis")
            if needless and getattr(plain, one.name) != getattr(given, one.name):
                raise ConfigError(f"--{one.name} has no effect on any file of the source; leave it out")

    def notes(self) -> Iterator[str]:
        """What was decided by itself."""
        planes = [f"{amount} {plane}" for plane, amount in sorted(self.planes.items()) if plane]
        if planes and self.options.parts.axis == "auto":
            yield f"volumes cut into slices: {', '.join(planes)}; --axis chooses"
        if self.blank:
            total = self.blank + self.kept
            yield f"{self.blank} of {total} slices and tiles without an object left out; --slices all keeps them"


def _check_area(pair: Listed, places: Sequence[tuple[Place, Place]]) -> None:
    (_, box), _ = places[0]
    if box.height * box.width > (limit := 2 * (Image.MAX_IMAGE_PIXELS or 1 << 62)):
        reason = f"{box.width} x {box.height} px, more than {limit // 1_000_000} million"
        raise Unusable(f"{pair.image}: {reason}; cut it into tiles, such as --tile 1024", "bomb")


def _name(image: Stack, seen: Place, tile: int | None) -> str:
    """Of a part, such as axial_012 or slice_3_y512_x0; empty if it is the whole."""
    number, box = seen
    words = [f"{image.plane}_{number:0{len(str(image.count - 1))}}"] if image.plane else []
    if tile is not None and (box.height, box.width) != image.size:
        words.append(f"y{box.top}_x{box.left}")
    return "_".join(words)


def _named(path: Path, part: str) -> Path:
    """A name for a part that looks like a file below the whole; the whole itself without a part."""
    return path / f"{without_suffix(path).name}_{part}.png" if part else path


def _picture_of(shelf: Shelf, source: Source, place: Place, window: tuple[float, float] | None) -> NDArray[np.uint8]:
    stack = shelf.stack(source.key, source.open)
    return to_8_bit(stack.values(*place), shelf.levels(source.key, lambda: levels_of(stack, window)))


def _mask_of(shelf: Shelf, source: Source, place: Place, whole: tuple[float, ...]) -> Labels | NDArray[np.bool_]:
    values = shelf.stack(source.key, source.open).values(*place)
    return values if values.dtype == np.bool_ else Labels(np.asarray(values), whole)
