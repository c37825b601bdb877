"""Pairs names of images with names of masks that almost match: finds the one rule by which most of them do."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

TRIED_IMAGES = 40  # rules are found on so many images, spread evenly
TRIED_RULES = 12  # and the commonest ones counted on all
COMMON_TOKEN = 20  # a word in more masks than this does not tell which one is meant
TOKENS = re.compile(r"[A-Za-z]+|\d+|[^A-Za-z\d]+")


@dataclass(frozen=True, order=True)
class Rule:
    """`before + NAME + after` on both sides; with `numbered` a number follows in the mask, and there may be several."""

    numbered: bool = False
    image_before: str = ""
    image_after: str = ""
    mask_before: str = ""
    mask_after: str = ""

    @property
    def plain(self) -> bool:
        """Whether names are simply equal."""
        return self == Rule()

    @property
    def length(self) -> int:
        """Letters added to the names; a shorter rule is the likelier one."""
        return sum(map(len, (self.image_before, self.image_after, self.mask_before, self.mask_after)))

    def describe(self) -> str:
        """In words, for a note."""
        image = f"{self.image_before}NAME{self.image_after}"
        mask = f"{self.mask_before}NAME{self.mask_after}{'0, 1, ...' * self.numbered}"
        return f"image {image}.* belongs to mask {mask}.*"

    def name_in_image(self, image: str) -> str | None:
        """NAME in the name of an image, None if the rule does not fit it."""
        return _between(self.image_before, image, self.image_after)

    def name_in_mask(self, mask: str) -> str | None:
        """NAME in the name of a mask, None if the rule does not fit it."""
        if self.numbered:
            mask, count = re.subn(r"\d+$", "", mask)
            if not count:
                return None
        return _between(self.mask_before, mask, self.mask_after)


def find_rule(images: Sequence[str], masks: Collection[str]) -> Rule:
    """The rule that pairs most of the names; equal names, unless another one pairs more and at least half of them.

    Names are paths without ending; folders before the last part must agree."""
    votes = Counter(_rules(images, masks))
    best, best_score = Rule(), _score(Rule(), images, masks)
    candidates = [rule for rule, _ in votes.most_common(TRIED_RULES)]
    for rule in sorted(candidates, key=lambda rule: (rule.numbered, rule.length, rule)):
        paired = pair_names(rule, images, masks)
        if len(paired) * 2 >= len(images) and (score := _score(rule, images, masks)) > best_score:
            best, best_score = rule, score
    return best


def pair_names(rule: Rule, images: Iterable[str], masks: Iterable[str]) -> dict[str, list[str]]:
    """Image -> its masks, sorted, for all images that have any."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for mask in sorted(masks):
        folder, last = posixpath.split(mask)
        if (name := rule.name_in_mask(last)) is not None:
            by_name[posixpath.join(folder, name)].append(mask)
    paired = {}
    for image in images:
        folder, last = posixpath.split(image)
        name = rule.name_in_image(last)
        found = by_name.get(posixpath.join(folder, name)) if name is not None else None
        if found:
            paired[image] = found
    return paired


def _score(rule: Rule, images: Sequence[str], masks: Collection[str]) -> int:
    paired = pair_names(rule, images, masks)
    return len(paired) + sum(map(len, paired.values()))


def _rules(images: Sequence[str], masks: Collection[str]) -> Iterable[Rule]:
    """A rule for each pair of names that share a rare part."""
    with_token: dict[str, list[str]] = defaultdict(list)
    for mask in masks:
        last = posixpath.basename(mask)
        for token in set(TOKENS.findall(last)):
            with_token[token].append(last)
    for image in images[:: max(1, len(images) // TRIED_IMAGES)]:
        last = posixpath.basename(image)
        near = {
            mask
            for token in TOKENS.findall(last)
            if len(with_token[token]) <= COMMON_TOKEN
            for mask in with_token[token]
        }
        for mask in sorted(near):
            yield from _rules_of(last, mask)


def _rules_of(image: str, mask: str) -> Iterable[Rule]:
    """The rule by which these two names belong together, and the same for masks that are numbered."""
    left, right = TOKENS.findall(image), TOKENS.findall(mask)
    run = difflib.SequenceMatcher(None, left, right, autojunk=False).find_longest_match()
    first, last = 0, run.size
    while last - first > 1 and not left[run.a + last - 1].isalnum():  # marks between words belong to what is added
        last -= 1
    while last - first > 1 and not left[run.a + first].isalnum():
        first += 1
    image_before, image_after = "".join(left[: run.a + first]), "".join(left[run.a + last :])
    mask_before, mask_after = "".join(right[: run.b + first]), "".join(right[run.b + last :])
    if mask_after.startswith(image_after):  # what both have belongs to the name: a (1), a (1)_mask
        image_after, mask_after = "", mask_after[len(image_after) :]
    if mask_before.endswith(image_before):
        image_before, mask_before = "", mask_before[: len(mask_before) - len(image_before)]
    yield Rule(False, image_before, image_after, mask_before, mask_after)
    if re.search(r"\D\d+$", mask_after) and not image_after:
        yield Rule(True, image_before, image_after, mask_before, re.sub(r"\d+$", "", mask_after))


def _between(before: str, text: str, after: str) -> str | None:
    if not (text.startswith(before) and text.endswith(after)) or len(text) <= len(before) + len(after):
        return None
    return text[len(before) : len(text) - len(after)]
