"""Grey fields and their colours."""

from __future__ import annotations

import numpy as np
import pytest

from infosam.synthetic.textures import FIELD_PX, colourise, crop, make_bank, smooth_field


def test_a_bank_is_the_same_for_a_seed_and_spans_its_range() -> None:
    one, other = (make_bank(6, np.random.default_rng(0)) for _ in range(2))
    for field, again in zip(one, other, strict=True):
        assert field.shape == (FIELD_PX, FIELD_PX)
        assert field.dtype == np.float32
        assert (field.min(), field.max()) == (0, 1)
        assert (field == again).all()


@pytest.mark.parametrize("side_px", [16, 64, 300])
def test_a_crop_has_the_size_asked_for(side_px: int) -> None:
    field = make_bank(1, np.random.default_rng(0))[0]
    rng = np.random.default_rng(1)
    views = [crop(field, side_px, rng) for _ in range(5)]
    assert all(view.shape == (side_px, side_px) for view in views)
    assert len({view.tobytes() for view in views}) == 5


def test_colours_lie_between_the_two() -> None:
    dark, light = np.array([[0.1, 0.2, 0.3], [0.9, 0.4, 0.3]], dtype=np.float32)
    coloured = colourise(np.array([[0, 0.5, 1]], dtype=np.float32), dark, light)
    np.testing.assert_allclose(coloured, [[dark, (dark + light) / 2, light]], rtol=1e-6)


@pytest.mark.parametrize("cells", [1, 3, 10])
def test_a_smooth_field_is_smooth(cells: int) -> None:
    field = smooth_field(64, cells, np.random.default_rng(0))
    assert field.shape == (64, 64)
    assert 0 <= field.min() <= field.max() <= 1
    assert np.abs(np.diff(field, axis=0)).max() < 0.05 * (cells + 1)
