"""Draws the splits a data set came without: seeded, and never one image or group in two of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from infosam.data.card import SPLITS, Split
from infosam.errors import DataError

HELD_OUT_SHARE = 0.15
SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def complete_splits(
    source: Path, given: Mapping[str, Split | None], *, seed: int, shares: Mapping[str, float] | None = None
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Every key with a split, and a note for each split made here.

    `given` maps keys (an image, or a group of images) to their split; keys without one count as train. A missing val
    or test is drawn from train, 15 % of all keys each, at least one; with `shares` of foreground per key, evenly over
    small and large ones. A set without train, made to be scored only, is
    left as it is. Raises DataError if train has too few keys to give any away."""
    splits: dict[str, Split] = {key: split or "train" for key, split in given.items()}
    present = set(splits.values())
    missing: list[Split] = [split for split in SPLITS if split not in present]
    if not missing or "train" in missing:
        return splits, ()
    keys = sorted(key for key, split in splits.items() if split == "train")
    if len(keys) <= len(missing):
        raise DataError(
            f"{source}: {len(keys)} image{'s' * (len(keys) != 1)} (or groups) to train on, too few to make "
            f"{' and '.join(missing)} from; at least {len(missing) + 1} are needed"
        )
    random.Random(seed).shuffle(keys)
    amount = max(1, min(round(HELD_OUT_SHARE * len(splits)), (len(keys) - 1) // len(missing)))
    if shares is not None:
        keys = _spread(keys, shares, amount, len(missing))
    for position, split in enumerate(missing):
        for key in keys[position * amount : (position + 1) * amount]:
            splits[key] = split
    taken = Counter(splits.values())
    notes = tuple(
        f"no {split} split given: {taken[split]} of {len(keys)} training images (or groups) drawn for it, seed {seed}"
        for split in missing
    )
    return splits, notes


def united(links: Sequence[tuple[str, str]]) -> list[str]:
    """For the first of each two that are linked, the one name that all have which are linked to it, over however many
    steps."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key] = parent[parent[key]]
        return key

    for link in links:
        first, second = sorted(map(root, link))
        parent[second] = first
    return [root(key) for key, _ in links]


def _spread(keys: list[str], shares: Mapping[str, float], amount: int, splits: int) -> list[str]:
    """Shuffled keys with `amount` for each of so many splits first, each spread evenly over the sorted shares."""
    ordered = sorted(keys, key=lambda key: shares[key])  # stable: among equal shares the shuffled order stays
    place = {key: position for position, key in enumerate(keys)}
    bounds = [round(part * len(ordered) / (amount * splits)) for part in range(amount * splits + 1)]
    drawn = [min(ordered[low:high], key=place.__getitem__) for low, high in pairwise(bounds)]
    first = [key for split in range(splits) for key in drawn[split::splits]]
    return [*first, *(key for key in keys if key not in set(first))]
