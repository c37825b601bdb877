"""Features see the picture, not its padding, ring or brightness of the canvas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from infosam.data.transforms import prepare_image, resized_hw
from infosam.routing.features import FeatureConfig, features
from infosam.sam.encoder import FrozenPass
from infosam.sam.weights import BaseSam


def of(base: BaseSam, pictures: list[NDArray[np.uint8]], config: FeatureConfig) -> torch.Tensor:
    canvas = torch.stack([prepare_image(picture, 64) for picture in pictures])
    sizes = [resized_hw(*picture.shape[:2], 64) for picture in pictures]
    with torch.no_grad():
        return features(FrozenPass(base.sam.image_encoder, canvas), sizes, base.spec.patch_px, config)


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3), np.uint8) for size in ((64, 64), (64, 30), (20, 64), (64, 4))]


@pytest.mark.parametrize(
    ("config", "width"),
    [
        (FeatureConfig(taps=(1,), spread=False), 128),
        (FeatureConfig(taps=(1, 2), spread=True), 512),
        (FeatureConfig(taps=("neck",), spread=False), 128),
        (FeatureConfig(taps=(0, 6, "neck"), spread=True, ring=False), 768),
    ],
)
def test_their_shape_and_length(tiny_base: BaseSam, pictures, config: FeatureConfig, width: int) -> None:
    found = of(tiny_base, pictures, config)
    assert found.shape == (4, width)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    parts = found.reshape(4, -1, 128).norm(dim=2)  # all parts are 128 wide here
    assert parts.max() == pytest.approx((128 / width) ** 0.5, rel=1e-4)


def test_patches_of_padding_do_not_count(tiny_base: BaseSam) -> None:
    """Before the first block no token has seen another: those of the picture are all that may matter."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 255, (32, 64, 3), np.uint8)
    config = FeatureConfig(taps=(0,), spread=True, ring=False)
    canvas = torch.stack([prepare_image(wide, 64)] * 2)
    canvas[1, :, 32:] = 7.0
    with torch.no_grad():
        found = features(FrozenPass(tiny_base.sam.image_encoder, canvas), [(32, 64)] * 2, 8, config)
    assert torch.equal(found[0], found[1])


def test_the_ring_does_not_count(tiny_base: BaseSam, pictures) -> None:
    framed = pictures[0].copy()
    framed[:8], framed[-8:], framed[:, :8], framed[:, -8:] = 0, 0, 0, 0
    for ring in (True, False):
        config = FeatureConfig(taps=(0,), ring=ring)
        found = of(tiny_base, [pictures[0], framed], config)
        assert torch.allclose(found[0], found[1]) == ring


def test_the_order_of_a_batch_does_not_matter(tiny_base: BaseSam, pictures) -> None:
    config = FeatureConfig()
    together = of(tiny_base, pictures, config)
    alone = torch.cat([of(tiny_base, [picture], config) for picture in pictures])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("taps", [(), (-1,), ("head",)])
def test_taps_that_are_none(taps: tuple[object, ...]) -> None:
    with pytest.raises(ValidationError):
        FeatureConfig.model_validate({"taps": taps})
