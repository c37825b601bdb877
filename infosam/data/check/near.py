"""Finds pictures that are almost the same: scaled, compressed, brightened, mirrored, turned or slightly cropped copies,
and neighbouring frames of a film."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # px of the small picture that is kept of each
HASH_SIDE = 8
NEAR_BITS = 3  # of the 64 of a difference hash that may differ
RISE = 1.0  # grey values by which a neighbour must be brighter: less is noise in a flat background
BANDS, BAND_BITS = 4, 16  # two hashes that differ in at most three bits agree in one of four parts
COMPARED = 200  # hashes of one part: thousands of frames of one film are all alike
TRIED = 16  # pictures compared closely with one
# Details of different real photographs agree to .91 at most (fundus photographs), those of copies to .95 and more.
ALIKE = 0.93
BLUR, SOFT = 2.0, 4.0  # px and grey values: what is broader is no detail, what is stronger counts no more
SHARES = (1.0, 0.98, 0.96, 0.94, 0.92, 0.9)  # of the sides that a copy may have been cropped to
Grey = NDArray[np.float32]


def thumbnail_of(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey values (SIDE, SIDE) of a picture (H, W, 3), stretched to a square."""
    return np.asarray(Image.fromarray(rgb).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def alike_in(
    thumbnails: Sequence[NDArray[np.uint8]], apart: Callable[[int, int], bool]
) -> Iterator[tuple[int, int, bool]]:
    """For each picture at most one earlier one that is almost the same, and whether it is mirrored or turned.

    Only two that are `apart` (positions) are compared. A difference hash finds candidates, in all eight views; whether
    their details agree decides. Costs the same for each picture, however many are alike."""
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    hashes: list[int] = []
    for position, thumbnail in enumerate(thumbnails):
        seen = views(thumbnail.astype(np.float32))
        prints = fingerprints(seen)
        near: dict[int, tuple[int, int]] = {}
        for view, wanted in enumerate(prints):
            for other in dict.fromkeys(other for key in _keys(wanted) for other in buckets[key][:COMPARED]):
                bits = (wanted ^ hashes[other]).bit_count()
                if bits < near.get(other, (NEAR_BITS + 1, 0))[0] and apart(position, other):
                    near[other] = (bits, view)
        for other, (_, view) in sorted(near.items(), key=lambda item: item[1])[:TRIED]:
            if likeness(seen[view], thumbnails[other].astype(np.float32)) >= ALIKE:
                yield position, other, view > 0
                break
        hashes.append(prints[0])
        for key in _keys(prints[0]):
            buckets[key].append(position)


def _keys(fingerprint: int) -> list[tuple[int, int]]:
    return [(band, fingerprint >> (band * BAND_BITS) & 0xFFFF) for band in range(BANDS)]


def views(grey: Grey) -> Grey:
    """A square picture (S, S) as it is, mirrored, turned, and both: (8, S, S)."""
    return np.stack([np.rot90(side, turns) for side in (grey, grey[:, ::-1]) for turns in range(4)])


def fingerprints(greys: Grey) -> list[int]:
    """Difference hash, 64 bits, of each of the pictures (N, SIDE, SIDE): where it gets brighter from left to right."""
    tones = _averages(HASH_SIDE) @ greys @ _averages(HASH_SIDE + 1).T
    bits = tones[:, :, 1:] > tones[:, :, :-1] + RISE
    return [int.from_bytes(np.packbits(one).tobytes(), "big") for one in bits]


def likeness(left: Grey, right: Grey) -> float:
    """Correlation of the details of two pictures (SIDE, SIDE), where one may be a centre cut out of the other."""
    whole, cut = details(np.stack([left, right])), (details(_cuts(left)), details(_cuts(right)))
    return float(max((cut[0] @ whole[1]).max(), (cut[1] @ whole[0]).max()))


def details(greys: Grey) -> Grey:
    """What is finer than a blur, in pictures (N, SIDE, SIDE), as unit vectors (N, SIDE * SIDE). The great lines, such
    as a round field of view, are the same in all pictures of some kinds, so strong edges count no more than others."""
    fine = np.tanh((greys - _blur @ greys @ _blur.T) / SOFT).reshape(len(greys), -1)
    return np.asarray(fine / np.maximum(np.linalg.norm(fine, axis=1, keepdims=True), 1e-6), np.float32)


def _cuts(grey: Grey) -> Grey:
    return np.asarray(_cut @ grey @ _cut.transpose(0, 2, 1), np.float32)


def _averages(amount: int) -> Grey:
    """Averages of a row of SIDE values over `amount` equal parts: (amount, SIDE)."""
    edges = np.linspace(0, SIDE, amount + 1)
    covered = np.minimum(edges[1:, None], np.arange(1, SIDE + 1)) - np.maximum(edges[:-1, None], np.arange(SIDE))
    return np.asarray(np.maximum(covered, 0) * amount / SIDE, np.float32)


def _blurring() -> Grey:
    distance = np.arange(SIDE)[:, None] - np.arange(SIDE)
    weights = np.exp(-((distance / BLUR) ** 2) / 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _cutting() -> Grey:
    """Stretches the centre of a row, for each of SHARES: (shares, SIDE, SIDE)."""
    places = [(SIDE - 1) / 2 + share * (np.arange(SIDE) - (SIDE - 1) / 2) for share in SHARES]
    return np.asarray([np.maximum(0, 1 - np.abs(at[:, None] - np.arange(SIDE))) for at in places], np.float32)


_blur, _cut = _blurring(), _cutting()
