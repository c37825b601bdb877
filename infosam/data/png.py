"""Writes pictures and masks as PNG."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png(image: Image.Image) -> bytes:
    """A picture as an encoded PNG."""
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """A mask (H, W) as 8-bit PNG with one channel, 0 and 255. Written here, as runs of equal pixels, which masks are:
    three times as fast as Pillow, which tries filters meant for photos, and no larger."""
    lines = np.zeros((mask.shape[0], mask.shape[1] + 1), np.uint8)  # each begins with the number of its filter: none
    lines[:, 1:][mask] = 255
    runs = zlib.compressobj(strategy=zlib.Z_RLE)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], 8, 0, 0, 0, 0),
        b"IDAT": runs.compress(lines.data) + runs.flush(),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
