"""Pairs the images and masks of two folders by their names, and says of each that is left over what may be meant."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from infosam.data.card import Split
from infosam.data.formats.names import is_readable, without_suffix
from infosam.data.pairs import SHOWN_PROBLEMS, Listed
from infosam.data.readers.matching import Rule, find_rule, pair_names
from infosam.data.readers.series import Names
from infosam.data.splits import SPLIT_WORDS

MAX_KINDS = 6
COMPARED = 2_000  # masks that may be meant by an image without one
SHORT_SET = 2  # images; so few do not tell a kind of masks from chance


@dataclass(frozen=True)
class Sides:
    """Where images and masks lie: two folders below the source, or twice the same one."""

    source: Path
    images: Path
    masks: Path


@dataclass(frozen=True)
class Matched:
    """What was paired and how."""

    listed: list[Listed]
    notes: tuple[str, ...]


def matched(sides: Sides, pictures: Names, drawn: Names, split: Split | None, problems: list[str]) -> Matched:
    """Pairs of `pictures` below the images' folder and `drawn` masks below the other, by the rule that fits most."""
    for folder, found, kind in ((sides.images, pictures, "images"), (sides.masks, drawn, "masks")):
        problems += [
            f"{folder}: {' and '.join(path.name for path in paths)} differ only in their ending, which of the {kind} "
            "is meant? Remove one"
            for paths in found.values()
            if len(paths) > 1
        ]
    notes: dict[str, None] = {}
    rule = find_rule(list(pictures), drawn.keys())
    paired = pair_names(rule, pictures, drawn)
    if not paired and (flat := _by_last_parts(pictures, drawn)):
        pictures, drawn = flat
        rule = find_rule(list(pictures), drawn.keys())
        if paired := pair_names(rule, pictures, drawn):
            notes["folders below images and masks differ: files were paired by their own names, each of which is there "
                  "once"] = None  # fmt: skip
    _add_numbered(rule, paired, drawn)
    listed = [
        Listed(
            image_name=str(pictures[name][0]),
            mask_name=str(drawn[mask][0]),
            split=split,
            row=_row(sides.images, pictures[name][0], count),
        )
        for name, found in paired.items()
        for count, mask in enumerate(found)
    ]
    if not rule.plain:
        notes[f"names matched by a rule: {rule.describe()}"] = None
    problems += _left_over(sides, rule, paired, pictures, drawn)
    return Matched(listed, tuple(notes))


def _by_last_parts(pictures: Names, drawn: Names) -> tuple[Names, Names] | None:
    """The same names without their folders, if each remains the only one of its kind."""
    sides = [{posixpath.basename(name): paths for name, paths in names.items()} for names in (pictures, drawn)]
    return (sides[0], sides[1]) if [len(one) for one in sides] == [len(pictures), len(drawn)] else None


def _add_numbered(rule: Rule, paired: dict[str, list[str]], drawn: Collection[str]) -> None:
    """Adds further masks of an image, such as a_mask_1 beside a_mask. Without a word in the rule a_1 is another name
    than a, and nothing is added."""
    if rule.numbered or not re.search(r"[A-Za-z]", rule.mask_after):
        return
    owner = {mask: image for image, masks in paired.items() for mask in masks}
    more: dict[str, list[str]] = defaultdict(list)
    for mask in sorted(set(drawn) - owner.keys()):
        image = owner.get(re.sub(r"[_\- ]\d+$", "", mask))
        if image is not None:
            more[image].append(mask)
    for image, masks in more.items():
        paired[image] = [*paired[image], *masks]


def _left_over(sides: Sides, rule: Rule, paired: dict[str, list[str]], pictures: Names, drawn: Names) -> list[str]:
    """What is wrong with the images without mask, and with the masks without image."""
    problems = []
    said = suggested(sides, rule, pictures, drawn)
    spare = sorted(drawn.keys() - {mask for found in paired.values() for mask in found})
    kinds, spare = _kinds(list(paired), spare)
    if kinds:
        counts = [(rule, len(paired)), *kinds]
        shown = ", ".join(f"{one.mask_before}NAME{one.mask_after}.* ({count:,})" for one, count in counts)
        problems.append(
            f"{sides.masks}: there are several masks for an image: {shown}; say which are meant, such as {said}"
        )
    alone = [name for name in pictures if name not in paired]
    if paired and len(alone) >= SHORT_SET:
        problems.append(f"{sides.images}: {len(alone):,} images have no mask; if they are to be left out, say {said}")
    if paired and alone and len(alone) == len(spare):
        problems.append(
            f"{sides.masks}: as many masks as images are left over, {len(spare):,}: if the numbers in the names are "
            "shifted, all pairs are wrong; look at some before you remove any"
        )
    unread = _unread(sides.masks) if alone else {}
    for number, name in enumerate(alone):
        near = _near(name, spare) if number < SHOWN_PROBLEMS else None  # comparing all with all would take hours
        hint = f"is it {drawn[near][0].name}? Give both the same name" if near else "add it or remove the image"
        hint = unread.get(_expected(rule, name), hint)
        problems.append(f"{pictures[name][0]}: no mask {_expected(rule, name)}.* in {sides.masks}; {hint}")
    unread = _unread(sides.images) if spare else {}
    for name in spare:
        expected = _expected_image(rule, name)
        hint = unread.get(posixpath.basename(expected), "remove it")
        problems.append(f"{drawn[name][0]}: mask without an image {expected}.* in {sides.images}; {hint}")
    return problems


def _unread(folder: Path) -> dict[str, str]:
    """What to say of files that are kept in a way nobody here reads, such as a.heic, by their names without ending."""
    return {
        path.stem: f"{path} is there, but no picture that is read here: save it as PNG or JPEG"
        for path in sorted(folder.rglob("*"))
        if not is_readable(path) and not path.is_dir()
    }


def _near(name: str, spare: list[str]) -> str | None:
    """The mask that is perhaps meant."""
    begun = next((mask for mask in spare if mask.startswith(name)), None)
    return begun or next(iter(difflib.get_close_matches(name, spare[:COMPARED], n=1)), None)


def _expected_image(rule: Rule, mask: str) -> str:
    name = rule.name_in_mask(posixpath.basename(mask))
    if name is None or rule.plain:
        return mask
    return posixpath.join(posixpath.dirname(mask), f"{rule.image_before}{name}{rule.image_after}")


def _kinds(names: Sequence[str], spare: list[str]) -> tuple[list[tuple[Rule, int]], list[str]]:
    """Further rules by which at least half of the images have a mask, each with its number of masks, and what is left:
    a second observer, edges, attributes, colours."""
    kinds: list[tuple[Rule, int]] = []
    while spare and len(names) >= SHORT_SET and len(kinds) < MAX_KINDS:
        rule = find_rule(names, spare)
        found = pair_names(rule, names, spare)
        if len(found) * 2 < len(names):
            break
        taken = {mask for masks in found.values() for mask in masks}
        kinds.append((rule, len(taken)))
        spare = [mask for mask in spare if mask not in taken]
    return kinds, spare


def suggested(sides: Sides, rule: Rule, pictures: Names, drawn: Names) -> str:
    """The two options that say what the rule found, for a user to correct."""
    image = f"{_open(rule.image_before)}NAME{_open(rule.image_after)}{_ending(pictures)}"
    mask = f"{_open(rule.mask_before)}NAME{_open(rule.mask_after)}{'*' * rule.numbered}{_ending(drawn)}"
    places = [_below(sides.source, folder) for folder in (sides.images, sides.masks)]
    return f"--images '{places[0]}{image}' --masks '{places[1]}{mask}'"


def _open(affix: str) -> str:
    """A part of names without the split in it: 21_training.tif, 01_test.tif."""
    return re.sub(r"[A-Za-z]+", lambda word: "*" if word[0].lower() in SPLIT_WORDS else word[0], affix)


def _below(source: Path, folder: Path) -> str:
    parts = folder.relative_to(source).parts
    return "".join(f"{'SPLIT' if part.lower() in SPLIT_WORDS else part}/" for part in parts)


def _ending(names: Names) -> str:
    endings = {path.name[len(without_suffix(path).name) :] for paths in names.values() for path in paths}
    return endings.pop() if len(endings) == 1 else ".*"


def _expected(rule: Rule, image: str) -> str:
    name = rule.name_in_image(Path(image).name)
    return image if name is None or rule.plain else f"{rule.mask_before}{name}{rule.mask_after}"


def _row(images: Path, path: Path, count: int) -> str:
    """Unique, though an image may have several masks."""
    name = path.relative_to(images).as_posix()
    return name if count == 0 else f"{name} (mask {count + 1})"
