"""From a picture to SAM's square canvas, and from logits on that canvas back to the picture.

Letters in shapes: B images, (H, W) original pixels, (h, w) after resizing, S side of the canvas.
Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import resize, to_pil_image

from infosam.protocols import STRICT, ProtocolConfig

EXIF_ORIENTATION = 0x0112
PIXEL_MEAN = (123.675, 116.28, 103.53)  # RGB on the 0-255 scale; segment_anything.build_sam
PIXEL_STD = (58.395, 57.12, 57.375)
# Normalised value of each byte, per channel. A look-up in numpy stays on one core: torch would split so small a job
# over threads and, on a busy machine, spend far longer waiting for them than computing.
_NORMALISED = (np.arange(256, dtype=np.float32) - np.array(PIXEL_MEAN, dtype=np.float32)[:, None]) / np.array(
    PIXEL_STD, dtype=np.float32
)[:, None]


def resized_hw(height: int, width: int, canvas_px: int) -> tuple[int, int]:
    """Size with the longest side at `canvas_px`, rounded as segment_anything's ResizeLongestSide does.

    Deviation: at least 1 px, where the original gives 0 for very long pictures and then fails."""
    scale = canvas_px * 1.0 / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_image(rgb: NDArray[np.uint8], canvas_px: int) -> NDArray[np.uint8]:
    """(H, W, 3) -> (h, w, 3) uint8, the same pixels as ResizeLongestSide.apply_image (antialiased bilinear on PIL)."""
    size = resized_hw(rgb.shape[0], rgb.shape[1], canvas_px)
    return np.array(resize(to_pil_image(rgb), list(size)))


def resize_mask(mask: NDArray[np.bool_], canvas_px: int, protocol: ProtocolConfig = STRICT) -> NDArray[np.bool_]:
    """(H, W) -> (h, w) bool: foreground where it covers at least half of the new pixel.

    A mask thinner than that everywhere keeps its best covered pixels instead of vanishing; with the protocol's
    `mask_resize` bilinear it vanishes, as in the released code."""
    height, width = resized_hw(mask.shape[0], mask.shape[1], canvas_px)
    if mask.shape == (height, width):
        return mask.copy()
    if protocol.mask_resize == "bilinear":
        picture = Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(picture) > 0
    cover = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX))
    threshold = min(0.5, float(cover.max())) if mask.any() else 0.5
    return cover >= threshold - 1e-6  # the sum of a box filter's float weights can fall just short of one half


def normalise_and_pad(resized: NDArray[np.uint8], canvas_px: int, protocol: ProtocolConfig = STRICT) -> Tensor:
    """(h, w, 3) uint8 -> (3, S, S) float32: SAM's mean and deviation, then zeros to the right and below.

    The order is SAM's: padding is exactly 0 in normalised units, unless the protocol pads raw pixels; and colours are
    in the order red, green, blue, unless it turns them round before the mean of red is taken from the first."""
    canvas = np.zeros((3, canvas_px, canvas_px), dtype=np.float32)
    height, width = resized.shape[:2]
    seen = resized if protocol.channels == "rgb" else resized[:, :, ::-1]
    for channel, table in enumerate(_NORMALISED):
        if protocol.padding == "raw":
            canvas[channel] = table[0]
        canvas[channel, :height, :width] = table[seen[:, :, channel]]
    return torch.from_numpy(canvas)


def pad_mask(resized: NDArray[np.bool_], canvas_px: int) -> Tensor:
    """(h, w) bool -> (S, S) bool, False to the right and below."""
    canvas = np.zeros((canvas_px, canvas_px), dtype=np.bool_)
    canvas[: resized.shape[0], : resized.shape[1]] = resized
    return torch.from_numpy(canvas)


def prepare_image(rgb: NDArray[np.uint8], canvas_px: int, protocol: ProtocolConfig = STRICT) -> Tensor:
    """(H, W, 3) uint8 RGB -> (3, S, S) float32: what SAM's image encoder expects, or what the protocol shows it."""
    return normalise_and_pad(resize_image(rgb, canvas_px), canvas_px, protocol)


def prepare_mask(mask: NDArray[np.bool_], canvas_px: int, protocol: ProtocolConfig = STRICT) -> Tensor:
    """(H, W) bool -> (S, S) bool on the canvas of `prepare_image`."""
    return pad_mask(resize_mask(mask, canvas_px, protocol), canvas_px)


def valid_mask(size: tuple[int, int], canvas_px: int) -> Tensor:
    """(S, S) bool: True on the picture of resized size (h, w), False on padding."""
    return pad_mask(np.ones(size, dtype=np.bool_), canvas_px)


def restore_logits(
    low_res: Tensor, canvas_px: int, resized_hw: Sequence[tuple[int, int]], original_hw: Sequence[tuple[int, int]]
) -> list[Tensor]:
    """(B, 1, h, w) decoder logits -> B float tensors (H, W) at original size; foreground where > 0.

    Bilinear to the canvas, crop of the padding, bilinear to the original: segment_anything's Sam.postprocess_masks."""
    on_canvas = F.interpolate(low_res.float(), (canvas_px, canvas_px), mode="bilinear", align_corners=False)
    return [
        F.interpolate(logits[None, :, :h, :w], original, mode="bilinear", align_corners=False)[0, 0]
        for logits, (h, w), original in zip(on_canvas, resized_hw, original_hw, strict=True)
    ]
