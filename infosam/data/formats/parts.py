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
from infosam.data.formats.nifti import PLANES
from infosam.data.formats.shelf import Shelf
from infosam.data.formats.table import Source, image_source, mask_source, pictures_apart, same_place
from infosam.data.formats.tiles import boxes
from infosam.data.masks import Unusable, distinct, object_values
from infosam.data.pairs import Labels, Listed, MaskChoice, PartOptions, ReadOptions
from infosam.data.readers.contract import Listing
from infosam.errors import ConfigError, DataError

MAX_VALUES = 65_536  # different ones in a mask; more are no labels
SHOWN_VALUES = 20
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
            held = ", ".join(f"{value:g}" for value in sorted(cutter.values)[:SHOWN_VALUES])
            raise DataError(
                f"{listing.root}: no slice or tile has an object, of {cutter.blank} looked at; the masks hold {held}: "
                "choose with --class, or keep them with --slices all"
            )
    return replace(listing, listed=listed, notes=(*listing.notes, *cutter.notes()))


@dataclass(frozen=True)
class _File:
    """An opened file of a pair."""

    source: Source
    stack: Stack

    @property
    def chosen(self) -> Sequence[int]:
        """Numbers of its pictures that are meant."""
        return range(self.stack.count) if self.source.chosen is None else self.source.chosen


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
    remarks: set[str] = field(default_factory=set)
    values: set[float] = field(default_factory=set)  # in the masks, a few of each

    def parts_of(self, pair: Listed) -> Iterator[Listed]:
        """The pairs that come of one; itself if it is ordinary. Raises Unusable."""
        image_from = image_source(pair, self.options)
        image = None if image_from is None else self._opened(image_from)
        mask_from = mask_source(pair, self.options, None if image is None else image.stack)
        if mask_from is None:
            if pictures_apart(pair):
                raise _elsewhere(pair)
            yield pair
        elif image is None:
            yield self._drawn(pair, self._opened(mask_from))
        else:
            yield from self._cut(pair, image, self._opened(mask_from))

    def _opened(self, source: Source) -> _File:
        return _File(source, self.shelf.stack(source.key, source.open))

    def _drawn(self, pair: Listed, mask: _File) -> Listed:
        """An ordinary picture whose mask is something else."""
        if len(mask.chosen) > 1:
            raise _other_size(pair, (*mask.stack.size[::-1], len(mask.chosen)), "is one picture")
        place = (mask.chosen[0], Box(0, 0, *mask.stack.size))
        whole, _ = _values_in(pair, mask.stack, [place], self.options.choice)
        if mask.stack.remark is not None:
            self.remarks.add(mask.stack.remark)
        return replace(pair, mask_content=partial(_mask_of, self.shelf, mask.source, place, whole))

    def _cut(self, pair: Listed, image: _File, mask: _File) -> Iterator[Listed]:
        _check_fit(pair, image, mask)
        self.used |= image.stack.uses
        self.remarks |= {remark for remark in (image.stack.remark, mask.stack.remark) if remark is not None}
        if image.stack.unplaced is not None and mask.stack.affine is None and mask.stack.plane:
            self.remarks.add(image.stack.unplaced)
        if image.stack.plane in PLANES:
            self.planes[image.stack.plane] += 1
        parts = boxes(image.stack.size, self.options.parts.tile, self.options.parts.overlap)
        _check_area(pair, parts[0])
        drawn = [(number, box) for number in mask.chosen for box in parts]
        seen = [(number, box) for number in image.chosen for box in parts]
        names = [_name(image, place, box) for place in range(len(image.chosen)) for box in parts]
        whole, labelled = _values_in(pair, mask.stack, drawn, self.options.choice)
        self.values |= set(whole[:SHOWN_VALUES])
        is_part = image.stack.sliced or len(parts) > 1
        group = pair.group or image.stack.group or without_suffix(pair.image).relative_to(self.root).as_posix()
        for left, right, name, has_object in zip(seen, drawn, names, labelled, strict=True):
            if is_part and not has_object and self.options.parts.slices == "labelled":
                self.blank += 1
                continue
            self.kept += is_part
            yield replace(
                pair,
                image_name=str(_named(pair.image, name)),
                mask_name=str(_named(pair.mask, name)),
                row=f"{pair.row}, {name.replace('_', ' ')}" if name else pair.row,
                group=group,
                image_content=partial(_picture_of, self.shelf, image.source, left, self.options.parts.window),
                mask_content=partial(_mask_of, self.shelf, mask.source, right, whole),
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
        yield from sorted(self.remarks)
        planes = [f"{amount} {plane}" for plane, amount in sorted(self.planes.items()) if plane]
        if planes and self.options.parts.axis == "auto":
            yield f"volumes cut into slices: {', '.join(planes)}; --axis chooses"
        if self.blank:
            total = self.blank + self.kept
            yield f"{self.blank} of {total} slices and tiles without an object left out; --slices all keeps them"


def _check_fit(pair: Listed, image: _File, mask: _File) -> None:
    """Raises Unusable if a mask is of another size than its image, or lies elsewhere."""
    several = max(len(image.chosen), len(mask.chosen)) > 1
    left, right = ((*one.stack.size[::-1], *[len(one.chosen)] * several) for one in (image, mask))
    if left != right:
        paged = "; its pages are read as slices, --bands 1 takes the first for the picture"
        raise _other_size(pair, right, shape_text(left) + paged * (image.stack.plane == "page"))
    if len(image.chosen) == image.stack.count and not same_place(image.stack, mask.stack):
        raise _elsewhere(pair)


def _elsewhere(pair: Listed) -> Unusable:
    reason = f"by their own coordinates the mask lies elsewhere than {pair.image.name}"
    return Unusable(f"{pair.mask}: {reason}; save it on the grid of the image", "size")


def _other_size(pair: Listed, shape: tuple[int, ...], wanted: str) -> Unusable:
    sizes = f"the mask is {shape_text(shape)} px, its image {pair.image.name} {wanted}"
    return Unusable(f"{pair.mask}: {sizes}; export the mask at the size of the image", "size")


def _check_area(pair: Listed, box: Box) -> None:
    if box.height * box.width > (limit := 2 * (Image.MAX_IMAGE_PIXELS or 1 << 62)):
        reason = f"{box.width} x {box.height} px, more than {limit // 1_000_000} million"
        raise Unusable(f"{pair.image}: {reason}; cut it into tiles, such as --tile 1024", "bomb")


def _values_in(
    pair: Listed, mask: Stack, places: Sequence[Place], choice: MaskChoice
) -> tuple[tuple[float, ...], list[bool]]:
    """All values of a mask, and which of its parts have an object. Raises Unusable if values do not say what is."""
    found: list[frozenset[float]] = []
    whole: set[float] = set()
    richest = mask.values(*places[0])
    for place in places:
        values = mask.values(*place)
        found.append(frozenset(distinct(values)))
        whole |= found[-1]
        if len(whole) > MAX_VALUES:
            text = f"{pair.mask}: more than {MAX_VALUES:,} different values, so it is no mask; correct the row"
            raise Unusable(text, "mask-values")
        if len(found[-1]) == max(map(len, found)):
            richest = values
    if any(np.isnan(value) for value in whole):
        reason = "the mask has pixels that are no numbers (NaN)"
        raise Unusable(f"{pair.mask}: {reason}; save them as 0, with np.nan_to_num", "mask-values")
    if richest.dtype == np.bool_:
        return (0.0, 1.0), [1.0 in values for values in found]
    chosen = set(object_values(sorted(whole), choice, pair.mask, richest))
    return tuple(sorted(whole)), [bool(values & chosen) for values in found]


def _name(image: _File, place: int, box: Box) -> str:
    """Of a part, such as axial_012 or slice_3_y512_x0; empty if it is the whole file."""
    amount = len(image.chosen)
    words = [f"{image.stack.plane}_{place:0{len(str(amount - 1))}}"] if _is_cut(image) else []
    if (box.height, box.width) != image.stack.size:
        words.append(f"y{box.top}_x{box.left}")
    return "_".join(words)


def _is_cut(image: _File) -> bool:
    """Whether the file is more than one slice; a volume of one slice is still one."""
    return bool(image.stack.plane) and (len(image.chosen) > 1 or image.stack.plane in PLANES)


def _named(path: Path, part: str) -> Path:
    """A name for a part that looks like a file below the whole; the whole itself without a part."""
    return path / f"{without_suffix(path).name}_{part}.png" if part else path


def _picture_of(shelf: Shelf, source: Source, place: Place, window: tuple[float, float] | None) -> NDArray[np.uint8]:
    stack = shelf.stack(source.key, source.open)
    return to_8_bit(stack.values(*place), shelf.levels(source.key, lambda: levels_of(stack, window)))


def _mask_of(shelf: Shelf, source: Source, place: Place, whole: tuple[float, ...]) -> Labels | NDArray[np.bool_]:
    values = shelf.stack(source.key, source.open).values(*place)
    return values.astype(np.bool_) if values.dtype == np.bool_ else Labels(values, whole)
