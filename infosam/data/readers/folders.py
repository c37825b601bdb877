"""Folders of images and of masks whose names match, perhaps after a rule, in split folders or not."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from infosam.data.card import Split
from infosam.data.formats.names import is_readable, without_suffix
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.readers.channels import with_channels
from infosam.data.readers.contract import Listing
from infosam.data.readers.foreign import not_read
from infosam.data.readers.matching import Rule, find_rule, pair_names
from infosam.data.readers.series import Names, with_series
from infosam.data.splits import SPLIT_WORDS
from infosam.errors import DataError

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos", "inputs", "input", "imagestr")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "groundtruth", "ground_truth", "ground truth",
    "gt", "gts", "segmentation", "segmentations", "segmentationclass", "manual", "1st_manual", "labelstr",
)  # fmt: skip
Places = tuple[Split | None, Path, Path]  # folder of images and of masks


class Folders:
    """images/ and masks/, each perhaps with train/, val/ and test/, or the other way round."""

    layout = (
        "folders images/ and masks/ with equal file names, or names that differ by one rule, such as a.jpg and "
        "a_mask.png, perhaps in train/, val/ and test/"
    )

    def fits(self, source: Path) -> bool:
        return source.is_dir() and bool(sides_of(source) or _split_folders(source))

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        listed: list[Listed] = []
        notes: dict[str, None] = {}
        for split, images, masks in _places(source, problems, notes):
            pictures, drawn = with_series(images, pictures_in(images, problems), pictures_in(masks, problems))
            if pictures and not drawn and (hint := not_read(masks)):
                problems.append(f"{masks}: holds no masks{hint}")
                continue
            pictures, said = with_channels(pictures, drawn)
            notes |= dict.fromkeys(said)
            pairs, rule = matched(images, masks, pictures, drawn, split, problems)
            listed += pairs
            if not rule.plain:
                notes[f"names matched by a rule: {rule.describe()}"] = None
        return Listing(root=source, listed=listed, notes=tuple(notes))


def named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Folders directly in this one with such names, the likeliest first."""
    try:
        found = [path for path in sorted(folder.iterdir()) if path.name.lower() in names and path.is_dir()]
    except OSError:
        return []
    return sorted(found, key=lambda path: names.index(path.name.lower()))


def sides_of(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks in a folder."""
    images, masks = named(folder, IMAGE_FOLDERS), named(folder, MASK_FOLDERS)
    return (images[0], masks[0]) if images and masks else None


def _split_folders(folder: Path) -> list[tuple[Split, Path, Path]]:
    """train/images with train/masks, and so on."""
    found = []
    for place in named(folder, tuple(SPLIT_WORDS)):
        if sides := sides_of(place):
            found.append((SPLIT_WORDS[place.name.lower()], *sides))
    return found


def _places(source: Path, problems: list[str], notes: dict[str, None]) -> Iterator[Places]:
    sides = sides_of(source)
    if sides is None:
        yield from _split_folders(source)
        return
    images, masks = sides
    given = [path for path in sorted(images.iterdir()) if path.is_dir() and path.name.lower() in SPLIT_WORDS]
    if not given:
        yield None, images, masks
        yield from _scored(source, images, notes)
        return
    loose = [path for path in sorted(images.iterdir()) if is_readable(path)]
    if loose:
        problems.append(
            f"{images}: {len(loose)} pictures, such as {loose[0].name}, lie beside the folders "
            f"{', '.join(path.name for path in given)}; move them into one of these"
        )
    if others := [path.name for path in sorted(images.iterdir()) if path.is_dir() and path not in given]:
        notes[f"{images}: not read: {', '.join(others)}; only folders named train, val or test are"] = None
    for place in given:
        if (masks / place.name).is_dir():
            yield SPLIT_WORDS[place.name.lower()], place, masks / place.name
        else:
            problems.append(f"{masks / place.name}: no such folder, but {place} exists; add the masks of this split")


def _scored(source: Path, images: Path, notes: dict[str, None]) -> Iterator[Places]:
    """imagesTs with labelsTs, the test split beside imagesTr in nnU-Net and the Medical Segmentation Decathlon."""
    tests = named(source, ("imagests",)) if images.name.lower() == "imagestr" else []
    labels = named(source, ("labelsts",))
    if tests and labels:
        yield "test", tests[0], labels[0]
    elif tests:
        notes[f"{tests[0]}: not read, there are no masks in labelsTs"] = None


def matched(
    images: Path, masks: Path, pictures: Names, drawn: Names, split: Split | None, problems: list[str]
) -> tuple[list[Listed], Rule]:
    """Pairs of `pictures` below `images` and `drawn` masks below `masks`, and the rule that made them."""
    for folder, found, kind in ((images, pictures, "images"), (masks, drawn, "masks")):
        problems += [
            f"{folder}: {' and '.join(path.name for path in paths)} differ only in their ending, which of the {kind} "
            "is meant? Remove one"
            for paths in found.values()
            if len(paths) > 1
        ]
    rule = find_rule(list(pictures), drawn.keys())
    paired = pair_names(rule, pictures, drawn)
    listed = [
        Listed(image=pictures[name][0], mask=drawn[mask][0], split=split, row=_row(images, pictures[name][0], count))
        for name, found in paired.items()
        for count, mask in enumerate(found)
    ]
    spare = sorted(drawn.keys() - {mask for found in paired.values() for mask in found})
    for name, paths in pictures.items():
        if name in paired:
            continue
        near = [mask for mask in spare if mask.startswith(name)] or difflib.get_close_matches(name, spare, n=1)
        hint = f"; is it {drawn[near[0]][0].name}? Give both the same name" if near else "; add it or remove the image"
        problems.append(f"{paths[0]}: no mask {_expected(rule, name)}.* in {masks}{hint}")
    problems += [f"{drawn[name][0]}: mask without an image {name}.* in {images}; remove it" for name in spare]
    return listed, rule


def _expected(rule: Rule, image: str) -> str:
    name = rule.name_in_image(Path(image).name)
    return image if name is None or rule.plain else f"{rule.mask_before}{name}{rule.mask_after}"


def _row(images: Path, path: Path, count: int) -> str:
    """Unique, though an image may have several masks."""
    name = path.relative_to(images).as_posix()
    return name if count == 0 else f"{name} (mask {count + 1})"


def pictures_in(folder: Path, problems: list[str]) -> Names:
    """Pictures in a folder and below it by their path without ending, sorted; links to folders are followed once."""
    found: Names = {}
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions") from error

    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(place)
        if real in seen:
            problems.append(f"{place}: a link to a folder that was already read; remove the link")
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(files):
            path = Path(place, name)
            if is_readable(path):
                found.setdefault(without_suffix(path.relative_to(folder)).as_posix(), []).append(path)
    return dict(sorted(found.items()))
