"""What is looked for in a set as a whole: each kind of finding is one small function in a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infosam.data.card import SPLITS
from infosam.data.check.files import Facts
from infosam.data.check.near import alike_in
from infosam.data.kinship import kin_apart
from infosam.data.manifest import leaks_in
from infosam.data.pairs import Listed
from infosam.data.splits import complete_splits, united
from infosam.errors import DataError

LITTLE_SHARE = 0.01
MANY_EMPTY = 0.5
PLAIN_VALUES = {1.0, 255.0}  # two ways to write yes
SHOWN_VALUES = 6
SHIFT = 3.0
MIN_SHIFTED = 10  # masks in a split below which its mean says nothing


@dataclass(frozen=True)
class Whole:
    """A set whose pairs have been looked at."""

    source: Path
    listed: Sequence[Listed]
    facts: Sequence[Facts]

    def firsts(self) -> list[int]:
        """One pair for each different image, by position; of images with several masks the first."""
        seen: dict[object, int] = {}
        for position, (pair, facts) in enumerate(zip(self.listed, self.facts, strict=True)):
            if facts.sha256:
                seen.setdefault(pair.image, position)
        return sorted(seen.values())

    def shares(self, split: str) -> list[float]:
        """Foreground shares of a split's masks that have any; pairs without a split count as train."""
        return [
            facts.share
            for pair, facts in zip(self.listed, self.facts, strict=True)
            if facts.share and (pair.split or "train") == split
        ]


# Position of the pair, or None for the whole set, what is wrong, and perhaps the position of the pair that it is like.
Said = Iterator[tuple[int | None, str] | tuple[int, str, int]]


def _leaks(whole: Whole) -> Said:
    yield from leaks_in(whole.listed)


def _kin(whole: Whole) -> Said:
    if kin := kin_apart(whole.listed):
        yield None, f"{kin}; --group '{kin.pattern}' keeps them in one split"


def _same(whole: Whole, *, across: bool) -> Said:
    first: dict[bytes, int] = {}
    for position in whole.firsts():
        earlier = first.setdefault(whole.facts[position].sha256, position)
        pair, other = whole.listed[position], whole.listed[earlier]
        if earlier != position and _apart(pair, other) is across:
            yield position, f"{_place(pair)}: the same picture as {_place(other)}", earlier


def _near(whole: Whole) -> Said:
    seen = [(place, thumb) for place in whole.firsts() if (thumb := whole.facts[place].thumbnail) is not None]
    pairs = [whole.listed[place] for place, _ in seen]
    sums = [whole.facts[place].sha256 for place, _ in seen]

    def compared(one: int, other: int) -> bool:
        return _apart(pairs[one], pairs[other]) and sums[one] != sums[other]

    for one, other, turned in alike_in([thumb for _, thumb in seen], compared):
        text = f"{_place(pairs[one])} looks like {_place(pairs[other])}" + ", mirrored or turned" * turned
        yield seen[one][0], text, seen[other][0]


def _apart(left: Listed, right: Listed) -> bool:
    """Whether two pairs are in different splits, or may come to be when splits are drawn."""
    return left.split != right.split or (left.split is None and left.key != right.key)


def _place(pair: Listed) -> str:
    return f"{pair.image.name} ({pair.split or 'no split yet'})"


def _no_split(whole: Whole) -> Said:
    given = {pair.split or "train" for pair in whole.listed}
    if "train" in given:
        yield from ((None, f"no {split} split: 15 % of train will be drawn") for split in SPLITS if split not in given)


def _no_train(whole: Whole) -> Said:
    if whole.listed and all(pair.split not in (None, "train") for pair in whole.listed):
        yield None, "no pair is in train"


def _nothing(whole: Whole) -> Said:
    """What ends an import though each pair is good."""
    left = [(pair, facts) for pair, facts in zip(whole.listed, whole.facts, strict=True) if not facts.absent]
    if whole.listed and not any(facts.share != 0 for _, facts in left):
        yield None, f"all {len(whole.listed)} masks are empty; look at the values in them, and at --class"
        return
    links = [(pair.key, f"picture {facts.sha256.hex() or position}") for position, (pair, facts) in enumerate(left)]
    keys = united(links)
    try:
        complete_splits(whole.source, {key: pair.split for key, (pair, _) in zip(keys, left, strict=True)}, seed=0)
    except DataError as problem:
        yield None, str(problem).removeprefix(f"{whole.source}: ")


def _imbalance(whole: Whole) -> Said:
    shares = [share for split in SPLITS for share in whole.shares(split)]
    if shares and (mean := float(np.mean(shares))) < LITTLE_SHARE:
        yield None, f"objects cover {mean:.2%} of the pixels on average"
    for split in SPLITS:
        known = [
            facts.share
            for pair, facts in zip(whole.listed, whole.facts, strict=True)
            if (pair.split or "train") == split and facts.share is not None and not facts.absent
        ]
        if (empty := known.count(0.0)) > MANY_EMPTY * len(known):
            yield None, f"{empty:,} of {len(known):,} masks in {split} are empty"


def _classes(whole: Whole) -> Said:
    """One class for each image, as label maps cut apart have it: every mask has two values, but not the same ones."""
    modes = Counter(facts.value[0] for facts in whole.facts if facts.value)
    for mode in modes:
        counts = Counter(facts.value[1] for facts in whole.facts if facts.value and facts.value[0] == mode)
        if len(counts) > 1 and not counts.keys() <= PLAIN_VALUES:
            shown = ", ".join(f"{value:g} in {count:,}" for value, count in counts.most_common(SHOWN_VALUES))
            yield None, f"the object has {len(counts)} different values in masks of mode {mode}: {shown}"


def _split_shift(whole: Whole) -> Said:
    train = whole.shares("train")
    for split in SPLITS[1:]:
        other = whole.shares(split)
        if min(len(train), len(other)) < MIN_SHIFTED:
            continue
        ratio = float(np.mean(other) / np.mean(train))
        if not 1 / SHIFT <= ratio <= SHIFT:
            yield None, f"objects in {split} are {ratio:.2g} times as large as in train, on average"


WHOLE_CHECKS: Mapping[str, Callable[[Whole], Said]] = {
    "leak": _leaks,
    "kin": _kin,
    "nothing": _nothing,
    "duplicate": lambda whole: _same(whole, across=True),
    "repeated": lambda whole: _same(whole, across=False),
    "near-duplicate": _near,
    "no-split": _no_split,
    "no-train": _no_train,
    "imbalance": _imbalance,
    "classes": _classes,
    "split-shift": _split_shift,
}
