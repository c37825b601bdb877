"""What is looked for in a set as a whole: each kind of finding is one small function in a table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from infosam.data.card import SPLITS
from infosam.data.check.files import Facts
from infosam.data.kinship import kin_apart
from infosam.data.manifest import leaks_in
from infosam.data.pairs import Listed

NEAR_BITS = 3  # of 64 that may differ
NEAR_TONE = 6.0  # mean difference of grey values, of 255
BANDS, BAND_BITS = 4, 16  # two fingerprints that differ in at most three bits agree in one of four parts
COMPARED = 200  # at most so many others for one picture: thousands of frames of one video are all alike
LITTLE_SHARE = 0.01
SHOWN_VALUES = 6
SHIFT = 3.0
MIN_SHIFTED = 10  # masks in a split below which its mean says nothing


@dataclass(frozen=True)
class Whole:
    """A set whose pairs have been looked at."""

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


Said = Iterator[tuple[int | None, str]]  # position of the pair, or None for the whole set, and what is wrong


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
            yield position, f"{_place(pair)}: the same picture as {_place(other)}"


def _near(whole: Whole) -> Said:
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position in whole.firsts():
        facts, pair = whole.facts[position], whole.listed[position]
        if not facts.grey:
            continue
        bands = [(band, facts.fingerprint >> (band * BAND_BITS) & 0xFFFF) for band in range(BANDS)]
        for earlier in dict.fromkeys(other for band in bands for other in buckets[band][:COMPARED]):
            other = whole.listed[earlier]
            if _apart(pair, other) and _alike(facts, whole.facts[earlier]):
                yield position, f"{_place(pair)} looks like {_place(other)}"
                break
        for band in bands:
            buckets[band].append(position)


def _apart(left: Listed, right: Listed) -> bool:
    """Whether two pairs are in different splits, or may come to be when splits are drawn."""
    return left.split != right.split or (left.split is None and left.key != right.key)


def _place(pair: Listed) -> str:
    return f"{pair.image.name} ({pair.split or 'no split yet'})"


def _alike(left: Facts, right: Facts) -> bool:
    if left.sha256 == right.sha256 or (left.fingerprint ^ right.fingerprint).bit_count() > NEAR_BITS:
        return False
    tones = [np.frombuffer(one.grey, np.uint8).astype(np.float64) for one in (left, right)]
    return bool(np.abs(tones[0] - tones[1]).mean() <= NEAR_TONE)


def _no_split(whole: Whole) -> Said:
    given = {pair.split or "train" for pair in whole.listed}
    if "train" in given:
        yield from ((None, f"no {split} split: 15 % of train will be drawn") for split in SPLITS if split not in given)


def _no_train(whole: Whole) -> Said:
    if whole.listed and all(pair.split not in (None, "train") for pair in whole.listed):
        yield None, "no pair is in train"


def _imbalance(whole: Whole) -> Said:
    shares = [share for split in SPLITS for share in whole.shares(split)]
    if shares and (mean := float(np.mean(shares))) < LITTLE_SHARE:
        yield None, f"objects cover {mean:.2%} of the pixels on average"


def _classes(whole: Whole) -> Said:
    """One class for each image, as label maps cut apart have it: every mask has two values, but not the same ones."""
    modes = Counter(facts.value[0] for facts in whole.facts if facts.value)
    for mode in modes:
        counts = Counter(facts.value[1] for facts in whole.facts if facts.value and facts.value[0] == mode)
        if len(counts) > 1:
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
    "duplicate": lambda whole: _same(whole, across=True),
    "repeated": lambda whole: _same(whole, across=False),
    "near-duplicate": _near,
    "no-split": _no_split,
    "no-train": _no_train,
    "imbalance": _imbalance,
    "classes": _classes,
    "split-shift": _split_shift,
}
