from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from infosam.data.formats.contract import Box
from infosam.data.formats.tiles import boxes


@pytest.mark.parametrize("size", [(100, 100), (100, 37), (33, 64), (64, 32), (5, 7), (32, 32), (1, 200)])
@pytest.mark.parametrize("overlap", [0, 1, 8, 16])
def test_tiles_cover_everything_and_overlap_at_least_so_much(size: tuple[int, int], overlap: int) -> None:
    found = boxes(size, 32, overlap)
    assert len(set(found)) == len(found)
    seen = np.zeros(size, int)
    for top, left, height, width in found:
        assert (height, width) == (min(32, size[0]), min(32, size[1]))
        seen[top : top + height, left : left + width] += 1
    assert seen.min() == 1
    for position, length in ((0, size[0]), (1, size[1])):
        starts = sorted({box[position] for box in found})
        assert starts[0] == 0
        assert starts[-1] == max(0, length - 32)
        assert all(after - before <= 32 - overlap for before, after in pairwise(starts))


def test_without_a_tile_a_picture_is_whole() -> None:
    assert boxes((7, 9), None, 0) == [Box(0, 0, 7, 9)]
