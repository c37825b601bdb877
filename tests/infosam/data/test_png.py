from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from infosam.data.png import mask_png


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 3), (130, 257)])
def test_a_mask_is_written_as_any_reader_of_png_expects_it(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(size) > 0.5
    with Image.open(io.BytesIO(mask_png(mask))) as read:
        assert (read.format, read.mode) == ("PNG", "L")
        read.verify()  # the sums of its chunks
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask_png(mask)))), mask * 255)
