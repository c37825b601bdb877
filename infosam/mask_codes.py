"""One mask as others read it: the bytes of a PNG file, or COCO's run lengths."""

from __future__ import annotations

import io
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class CocoMask(TypedDict):
    """Compressed run lengths, column by column (Lin et al. 2014, the set's own library). `size`: height and width."""

    size: list[int]
    counts: str


def coco_of(mask: NDArray[np.bool_]) -> CocoMask:
    """The run lengths of a mask (H, W)."""
    from pycocotools.mask import encode  # costs a moment that other commands need not wait

    coded = encode(np.asfortranarray(mask, dtype=np.uint8))
    return CocoMask(size=[int(side) for side in mask.shape], counts=coded["counts"].decode("ascii"))


def png_of(mask: NDArray[np.bool_]) -> bytes:
    """A mask (H, W) as a PNG file, 255 on the object and 0 elsewhere."""
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(stream, format="PNG")
    return stream.getvalue()
