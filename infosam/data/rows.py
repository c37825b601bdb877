"""One row of a data set: what is stored of a pair, and what the digest of the data set is over."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
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
        "image": {"bytes": content.image, "path": _inside(root, pair.image)},
        "mask": {"bytes": content.mask_png(), "path": _inside(root, pair.mask) + part},
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
    return hashlib.sha256(b"".join(sorted(row_digests))).hexdigest()


def ids_of(found: Found) -> list[str]:
    """A short unique name per row: the image's, else the mask's, else both paths."""
    for ids in ([pair.image.stem for pair in found.pairs], [pair.mask.stem for pair in found.pairs]):
        if len(set(ids)) == len(ids):
            return ids
    ids, seen = [], Counter[str]()
    for pair in found.pairs:
        row_id = "__".join(_inside(found.root, path).replace("/", "_") for path in (pair.image, pair.mask))
        seen[row_id] += 1
        ids.append(row_id if seen[row_id] == 1 else f"{row_id}__{seen[row_id]}")
    return ids


def _inside(root: Path, path: Path) -> str:
    """A path as it is stored: relative to the source, so nothing of this machine travels with the data."""
    return Path(os.path.relpath(path, root)).as_posix()
