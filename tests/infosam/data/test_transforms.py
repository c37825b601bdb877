from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import ImageEncoderViT
from segment_anything.utils.transforms import ResizeLongestSide

from infosam.data import transforms

SIZES = [(48, 64), (64, 48), (37, 101), (101, 37), (64, 64), (20, 13), (1, 7), (333, 500)]


def noise(height: int, width: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sam(canvas_px: int) -> Sam:
    """SAM's own pre- and postprocessing; they touch neither prompt encoder nor decoder."""
    encoder = ImageEncoderViT(img_size=canvas_px, patch_size=16, embed_dim=8, depth=0, num_heads=1, out_chans=8)
    unused = torch.nn.Identity()
    return Sam(encoder, unused, unused, list(transforms.PIXEL_MEAN), list(transforms.PIXEL_STD))  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("canvas_px", [64, 128])
def test_images_are_prepared_exactly_as_segment_anything_does(height: int, width: int, canvas_px: int) -> None:
    rgb = noise(height, width)
    theirs = ResizeLongestSide(canvas_px).apply_image(rgb)
    np.testing.assert_array_equal(transforms.resize_image(rgb, canvas_px), theirs)
    assert transforms.resized_hw(height, width, canvas_px) == theirs.shape[:2]
    expected = sam(canvas_px).preprocess(torch.from_numpy(theirs).permute(2, 0, 1))
    assert torch.equal(transforms.prepare_image(rgb, canvas_px), expected)


def test_a_very_long_picture_keeps_one_pixel() -> None:
    assert transforms.resized_hw(1, 1000, 64) == (1, 64)
    assert transforms.prepare_image(noise(1, 1000), 64).shape == (3, 64, 64)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_logits_are_restored_exactly_as_segment_anything_does(height: int, width: int) -> None:
    low_res = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    size = transforms.resized_hw(height, width, 64)
    other = transforms.resized_hw(30, 40, 64)
    ours = transforms.restore_logits(low_res, 64, [size, other], [(height, width), (30, 40)])
    assert torch.equal(ours[0], sam(64).postprocess_masks(low_res[:1], size, (height, width))[0, 0])
    assert torch.equal(ours[1], sam(64).postprocess_masks(low_res[1:], other, (30, 40))[0, 0])


def test_restored_half_precision_logits_are_float() -> None:
    restored = transforms.restore_logits(torch.zeros(1, 1, 4, 4, dtype=torch.bfloat16), 8, [(8, 8)], [(5, 5)])
    assert restored[0].dtype == torch.float32


# -------------------------------------------------------------------------------------------------------- masks


def test_a_mask_is_foreground_where_half_is_covered() -> None:
    mask = np.zeros((4, 8), bool)
    mask[:, :3] = True  # on half the size: one column full, the next covered by half, the others empty
    prepared = transforms.prepare_mask(mask, 4)
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(prepared, expected)


def test_a_mask_at_its_size_or_enlarged_whole_times_keeps_its_shape() -> None:
    mask = noise(8, 6)[:, :, 0] > 127
    assert torch.equal(transforms.prepare_mask(mask, 8)[:, :6], torch.from_numpy(mask))
    enlarged = transforms.resize_mask(mask, 24)
    np.testing.assert_array_equal(enlarged, mask.repeat(3, axis=0).repeat(3, axis=1))


def test_a_thin_mask_does_not_vanish() -> None:
    mask = np.zeros((400, 400), bool)
    mask[:, 200] = True
    kept = transforms.resize_mask(mask, 64)
    assert kept[:, 32].all()
    assert kept.sum() == 64
    assert not transforms.resize_mask(np.zeros((400, 400), bool), 64).any()


def test_mask_and_image_lie_on_each_other() -> None:
    mask = np.zeros((90, 160), bool)
    mask[20:70, 30:110] = True
    rgb = np.repeat(mask[:, :, None].astype(np.uint8) * 255, 3, axis=2)
    bright = transforms.resize_image(rgb, 64)[:, :, 0] > 127
    assert (bright != transforms.resize_mask(mask, 64)).mean() < 0.02


def test_valid_pixels_are_those_of_the_picture() -> None:
    valid = transforms.valid_mask((3, 4), 4)
    assert valid[:3].all()
    assert not valid[3:].any()
