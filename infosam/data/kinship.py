"""Images that by their names are of one patient, scene or video, though nobody said that they belong together."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from infosam.data.pairs import Listed

WORDS = (
    "patient", "pat", "subject", "subj", "case", "scene", "video", "vid", "clip", "sequence", "seq", "study",
    "volunteer", "person", "participant", "slide", "mouse", "animal", "donor",
)  # fmt: skip
NUMBERED = re.compile(rf"(?i)(?<![a-z])({'|'.join(WORDS)})([-_ ]?)\d+")
FIXED = (
    r"(TCGA[-_]\w\w[-_]\w{4})",  # The Cancer Genome Atlas
    r"(sub-[0-9A-Za-z]+)",  # Brain Imaging Data Structure
    r"([^/]+)[-_](?:slice|frame|tile|patch|crop)[-_]?\d+",
)
TRIED = 500  # names, spread evenly, on which patterns are found
MATCHING = 0.9  # share of the names that must speak so


@dataclass(frozen=True)
class Kin:
    """Two images of one whole, apart from each other."""

    pattern: str  # for --group
    whole: str  # such as patient007
    left: Listed
    right: Listed

    def __str__(self) -> str:
        names = " and ".join(f"{pair.image.name} ({pair.split or 'no split yet'})" for pair in (self.left, self.right))
        return f"by their names {names} are both of {self.whole}"


def kin_apart(listed: Sequence[Listed]) -> Kin | None:
    """The first two images of one whole that are in two splits, or may come to be when splits are drawn; None if names
    do not say so."""
    firsts: dict[str, Listed] = {}
    for pair in listed:
        firsts.setdefault(pair.key, pair)
    if len(firsts) < 3:
        return None
    root = len(os.path.commonpath({os.path.dirname(pair.image_name) for pair in firsts.values()}))
    pairs = list(firsts.values())
    some = [pair.image_name[root:] for pair in pairs[:: max(1, len(pairs) // TRIED)]]
    for pattern in _patterns(some):
        if sum(re.search(pattern, name) is not None for name in some) < MATCHING * len(some):
            continue
        found = {pair.key: match[1] for pair in pairs if (match := re.search(pattern, pair.image_name[root:]))}
        if len(found) >= MATCHING * len(pairs) and 1 < len(set(found.values())) < len(found):
            for left, right in _apart(found, firsts):
                return Kin(pattern, found[left.key], left, right)
    return None


def _patterns(names: Iterable[str]) -> Iterator[str]:
    """Likely patterns over these names, the most telling first."""
    yield from FIXED[:2]
    yield from dict.fromkeys(rf"({match[1]}{match[2]}\d+)" for name in names for match in NUMBERED.finditer(name))
    yield from FIXED[2:]


def _apart(found: Mapping[str, str], firsts: Mapping[str, Listed]) -> Iterator[tuple[Listed, Listed]]:
    by_whole: dict[str, list[Listed]] = defaultdict(list)
    for key, whole in found.items():
        by_whole[whole].append(firsts[key])
    for first, *others in by_whole.values():
        for other in others:
            if first.split != other.split or first.split is None:
                yield first, other
