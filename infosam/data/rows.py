"""One row of a data set: what is stored of a pair, and what the digest of the data set is over."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infosam.data.manifest import Found
from infosam.data.pairs import Pair
from infosam.data.pixels import PairContent


def row_of(row_id: str, pair: Pair, content: PairContent, *, root: Path, domain: str, part: str) -> dict[str, Any]:
    """The columns of `schema`; `part` tells several rows of one mask file apart."""
    return {
        "image": {"bytes": content.image, "path": _inside(root, pair.image_name)},
        "mask": {"bytes": content.mask_png(), "path": _inside(root, pair.mask_name) + part},
        "id": row_id,
        "domain": domain,
        "split": pair.split,
        "group": pair.group,
        "width": content.width,
        "height": content.height,
        "fg_fraction": content.fg_fraction,
        "source_sha256": hashlib.sha256(content.source_image).hexdigest(),
    }


def row_digest(row_id: str, split: str, group: str | None, mask: NDArray[np.bool_], source_sha256: str) -> bytes:
    """Of what was given, not of what was encoded: another PNG library must not change it. `mask` is (H, W)."""
    digest = hashlib.sha256(json.dumps([row_id, split, group, *mask.shape]).encode())
    digest.update(bytes.fromhex(source_sha256))
    digest.update(np.packbits(mask).tobytes())
    return digest.digest()


def set_digest(row_digests: Iterable[bytes]) -> str:
    """Of a data set, in whatever order and files its rows are."""
    digest = hashlib.sha256()
    for one in sorted(row_digests):
        digest.update(one)
    return digest.hexdigest()


def with_ids(found: Found) -> Iterator[tuple[Pair, str]]:
    """Pairs in their order, each with the id of its row."""
    name = namer(found)
    return ((pair, name(pair)) for pair in found.pairs)


def namer(found: Found) -> Callable[[Pair], str]:
    """Gives each pair, asked in their order, a short unique name: the image's, else the mask's, else both paths."""
    names: tuple[Callable[[Pair], str], ...] = (lambda pair: pair.image.stem, lambda pair: pair.mask.stem)
    for name in names:
        if len({name(pair) for pair in found.pairs}) == len(found.pairs):
            return name
    seen = Counter[str]()

    def both(pair: Pair) -> str:
        row_id = "__".join(_inside(found.root, path).replace("/", "_") for path in (pair.image_name, pair.mask_name))
        seen[row_id] += 1
        return row_id if seen[row_id] == 1 else f"{row_id}__{seen[row_id]}"

    return both


def _inside(root: Path, path: str) -> str:
    """A path as it is stored: relative to the source, so nothing of this machine travels with the data."""
    above = f"{root}/"
    if path.startswith(above) and "/../" not in path:
        return path[len(above) :]
    return Path(os.path.relpath(path, root)).as_posix()
