"""Ordinary pictures and masks, so that they can be cut into tiles or belong to a volume or scene."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infosam.data.formats.contract import KEPT, Box, Levels, Stack
from infosam.data.pairs import Labels, Listed, MaskChoice
from infosam.data.pixels import decode_rgb, decode_values, read_bytes


class Picture(Stack):
    """One picture in memory."""

    levels: Levels | None = KEPT

    def __init__(self, pixels: NDArray[np.generic]) -> None:
        self._pixels = pixels
        self.size = (pixels.shape[0], pixels.shape[1])
        self.nbytes = pixels.nbytes

    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        top, left, height, width = box
        return self._pixels[top : top + height : step, left : left + width : step]


def open_image(pair: Listed) -> Picture:
    """The image of a pair as 8-bit RGB, stretched as always if it has more bits. Raises Unusable."""
    content = pair.image_content() if pair.image_content else read_bytes(pair.image, "image")
    return Picture(content if isinstance(content, np.ndarray) else decode_rgb(content, pair.image))


def open_mask(pair: Listed, choice: MaskChoice) -> Picture:
    """Values of the mask of a pair; True and False where the source draws it itself. Raises Unusable."""
    drawn = pair.mask_content() if pair.mask_content else read_bytes(pair.mask, "mask")
    if isinstance(drawn, Labels):
        return Picture(drawn.values)
    if isinstance(drawn, np.ndarray):
        return Picture(drawn)
    values = decode_values(drawn, pair.mask, choice).values
    return Picture(values.astype(np.uint8) if values.dtype == np.bool_ else values)  # as of a mask, not as drawn
