"""One mask as a PNG and as run lengths."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.mask import decode

from infosam.mask_codes import coco_of, png_of

RNG = np.random.default_rng(0)
MASKS: list[NDArray[np.bool_]] = [
    RNG.random((7, 5)) < 0.5,
    np.zeros((3, 4), dtype=bool),
    np.ones((1, 9), dtype=bool),
    (RNG.random((9, 18)) < 0.5)[::2, ::3],  # not in one piece of memory
]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own arrays
@pytest.mark.parametrize("mask", MASKS)
def test_both_give_the_mask_back(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(decode(coco_of(mask)), mask)
    assert coco_of(mask)["size"] == list(mask.shape)
    with Image.open(io.BytesIO(png_of(mask))) as picture:
        assert np.array_equal(np.asarray(picture), mask * np.uint8(255))
