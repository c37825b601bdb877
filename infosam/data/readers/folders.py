"""Folders of images and of masks whose names match, perhaps after a rule, in split folders or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from infosam.data.card import Split
from infosam.data.formats.names import is_readable
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.readers.channels import with_channels
from infosam.data.readers.contract import Listing
from infosam.data.readers.foreign import not_read
from infosam.data.readers.lists import unread_lists
from infosam.data.readers.matching import find_rule
from infosam.data.readers.pairing import Matched, Sides, matched, suggested
from infosam.data.readers.pictures import folders_in, holds_pictures, pictures_in
from infosam.data.readers.series import with_series
from infosam.data.splits import SPLIT_WORDS
from infosam.errors import DataError

IMAGE_WORDS = frozenset(
    "images image imgs img jpegimages imagestr imagests photos photo inputs input original originals sat".split()
)
MASK_WORDS = frozenset(
    "masks mask labels label annotations annotation groundtruth truth gt gts segmentation segmentations seg manual "
    "trimaps labelstr labelsts".split()
)
SPLIT_PARTS = {**SPLIT_WORDS, "tr": "train", "ts": "test"}  # the latter of nnU-Net: imagesTr, labelsTs
SHOWN_FILES = 3
LOOKED_AT = 3  # levels of folders, for a note only
MAX_CHOICES = 4


class Folders:
    """images/ and masks/, each perhaps with train/, val/ and test/, or the other way round."""

    layout = (
        "folders images/ and masks/ with equal file names, or names that differ by one rule, such as a.jpg and "
        "a_mask.png, perhaps in train/, val/ and test/"
    )

    def fits(self, source: Path) -> bool:
        return source.is_dir() and bool(_groups(source) or any(_groups(place) for place in _split_folders(source)))

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        notes: dict[str, None] = {}
        listed: list[Listed] = []
        for found in _matches(source, problems, notes):
            listed += found.listed
            notes |= dict.fromkeys(found.notes)
        return Listing(root=source, listed=listed, notes=(*notes, *unread_lists(source)))


@dataclass
class _Group:
    """Folders that may hold the images and the masks of one split, or of all."""

    split: Split | None
    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)


def _words(name: str) -> set[str]:
    """Words of a name: GroundTruth, ground-truth and 1st_manual have two each."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)} | set(
        re.findall(r"[a-z]+", name.lower())
    )


def _split_in(name: str) -> Split | None:
    found = {SPLIT_PARTS[word] for word in _words(name) if word in SPLIT_PARTS}
    return found.pop() if len(found) == 1 else None


def _groups(folder: Path) -> list[_Group]:
    """Folders directly in this one that are called images or masks in some way, by the split in their names."""
    inside = folders_in(folder)
    masks = _with_pictures(mask_folders(folder))
    images = _with_pictures(path for path in inside if path not in masks and _words(path.name) & IMAGE_WORDS)
    images = [path for path in images if not _words(path.name) & MASK_WORDS]
    groups: dict[Split | None, _Group] = {}
    for path in masks:
        split = _split_in(path.name)
        groups.setdefault(split, _Group(split)).masks.append(path)
    for path in images:
        split = _split_in(path.name)
        if split in groups:
            groups[split].images.append(path)
    for split, group in groups.items():
        exact = [path for path in group.images if path.name.lower() in IMAGE_WORDS]
        group.images = exact if len(exact) == 1 else group.images
        if not group.images and split:  # train and train_labels
            group.images = [path for path in inside if SPLIT_WORDS.get(path.name.lower()) == split and _loose(path)]
    return [group for group in groups.values() if group.images]


def sides_of(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks in a folder, if there is one of each."""
    groups = _groups(folder)
    if len(groups) == 1 and len(groups[0].images) == len(groups[0].masks) == 1:
        return groups[0].images[0], groups[0].masks[0]
    return None


def mask_folders(folder: Path) -> list[Path]:
    """Folders directly in this one that are called masks in some way."""
    return [path for path in folders_in(folder) if _words(path.name) & MASK_WORDS]


def _with_pictures(folders: Iterable[Path]) -> list[Path]:
    """Those with pictures or volumes; all, if none has any, so that a message can say so."""
    given = list(folders)
    return [path for path in given if holds_pictures(path)] or given


def _split_folders(source: Path) -> list[Path]:
    return [path for path in folders_in(source) if path.name.lower() in SPLIT_WORDS]


def _loose(folder: Path) -> list[Path]:
    """Pictures directly in a folder."""
    return [path for path in sorted(folder.iterdir()) if is_readable(path)]


def _matches(source: Path, problems: list[str], notes: dict[str, None]) -> Iterator[Matched]:
    groups = _groups(source)
    below = {place: found for place in _split_folders(source) if (found := _groups(place))}
    if groups and below:
        names = " and ".join(f"{path.name}/" for group in groups for path in (group.images[0], group.masks[0]))
        raise DataError(
            f"{source}: holds {names}, and beside them {', '.join(f'{place.name}/' for place in below)} with images "
            "and masks of their own; which are meant? Import one of these, or move the others away"
        )
    read: list[Path] = []
    for place, found in {source: groups, **below}.items():
        for group in found:
            sides = _sides(source, group)
            read += [sides.images, sides.masks]
            split = group.split if place == source else SPLIT_WORDS[place.name.lower()]
            if split is None:
                yield from _with_splits(sides, problems, notes)
            else:
                yield _match(sides, sides.images, sides.masks, split, problems)
    for place in (source, *below):
        _tell_unread(place, [*read, *below], notes)


def _tell_unread(place: Path, read: list[Path], notes: dict[str, None]) -> None:
    others = [path for path in folders_in(place) if path not in read and holds_pictures(path, LOOKED_AT)]
    if others:
        notes[
            f"{place}: not read, though there are pictures in it: {', '.join(f'{path.name}/' for path in others)}"
        ] = None


def _sides(source: Path, group: _Group) -> Sides:
    """The folder of images and that of masks. Raises DataError if there are several, with what to say."""
    if len(group.images) == len(group.masks) == 1:
        return Sides(source, group.images[0], group.masks[0])
    choices = []
    for images in group.images:
        for masks in group.masks:
            sides, names = Sides(source, images, masks), (pictures_in(images, []), pictures_in(masks, []))
            choices.append(suggested(sides, find_rule(list(names[0]), names[1].keys()), *names))
    place, kind, several = group.masks[0].parent, "masks", group.masks
    if len(several) == 1:
        kind, several = "images", group.images
    shown = " or ".join(f"{path.name}/" for path in several)
    raise DataError(
        f"{place}: which folder holds the {kind}, {shown}? Look into them, and say it with\n  "
        + "\n  or ".join(choices[:MAX_CHOICES])
    )


def _with_splits(sides: Sides, problems: list[str], notes: dict[str, None]) -> Iterator[Matched]:
    """Folders of images and masks, with or without those of splits in them."""
    given = _split_folders(sides.images)
    if not given:
        yield _match(sides, sides.images, sides.masks, None, problems)
        return
    if loose := _loose(sides.images):
        problems.append(
            f"{sides.images}: {len(loose)} pictures, such as {loose[0].name}, lie beside the folders "
            f"{', '.join(path.name for path in given)}; move them into one of these"
        )
    if others := [path.name for path in folders_in(sides.images) if path not in given]:
        notes[f"{sides.images}: not read: {', '.join(others)}; only folders named train, val or test are"] = None
    there = _split_folders(sides.masks)
    if not there:
        yield _masks_in_one(sides, given, problems)
        return
    for place in given:
        split = SPLIT_WORDS[place.name.lower()]
        same = [path for path in there if path.name == place.name]
        masks = same or [path for path in there if SPLIT_WORDS[path.name.lower()] == split]
        if masks:
            yield _match(sides, place, masks[0], split, problems)
        else:
            problems.append(
                f"{sides.masks / place.name}: no such folder, but {place} exists; add the masks of this split, or "
                "move its images away"
            )


def _masks_in_one(sides: Sides, given: list[Path], problems: list[str]) -> Matched:
    """Images in folders of splits, the masks of all in one folder."""
    split = {place.name: SPLIT_WORDS[place.name.lower()] for place in given}
    pictures = {
        name: paths for name, paths in pictures_in(sides.images, problems).items() if name.split("/")[0] in split
    }
    found = matched(sides, pictures, pictures_in(sides.masks, problems), None, problems)
    listed = [replace(pair, split=split[pair.image.relative_to(sides.images).parts[0]]) for pair in found.listed]
    return Matched(listed, found.notes)


def _match(sides: Sides, images: Path, masks: Path, split: Split | None, problems: list[str]) -> Matched:
    names = with_series(images, pictures_in(images, problems), pictures_in(masks, problems))
    for folder, mine, others, cure in (
        (images, *names, "save them as PNG or JPEG"),
        (masks, *names[::-1], "masks are pictures here: export them as PNG, or as COCO JSON"),
    ):
        if not mine:
            inside = [path.name for path in sorted(folder.rglob("*")) if path.is_file()][:SHOWN_FILES]
            if not others and not inside:
                continue
            advice = not_read(folder) or f"; {cure}"
            problems.append(f"{folder}: no picture or volume in it, but {', '.join(inside) or 'nothing'}{advice}")
            return Matched([], ())
    pictures, said = with_channels(*names)
    found = matched(Sides(sides.source, images, masks), pictures, names[1], split, problems)
    return Matched(found.listed, (*said, *found.notes))
