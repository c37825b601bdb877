"""From a request's fields to an order, or to a refusal that says what is wrong with them."""

from __future__ import annotations

import asyncio
import json
from typing import BinaryIO

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image

from cluster.serve.contract import Order
from infosam.data.card import AUTO
from infosam.data.pixels import PICTURE_ERRORS
from infosam.data.rgb import to_rgb
from infosam.errors import DataError
from infosam.prompt_files import ImagePrompt, check_inside, parse_prompt

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
DECODED_AT_ONCE = 2


class Intake:
    """Reads the fields of requests; few pictures are decoded at the same time, for that takes memory and time."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._turns = asyncio.Semaphore(DECODED_AT_ONCE)

    async def order(self, image: BinaryIO, prompt: str, domain: str) -> Order:
        """Raises HTTPException 400 for what cannot be read, 413 for too many pixels."""
        try:
            meant = read_prompt(prompt)
            async with self._turns:
                rgb = await asyncio.to_thread(decode_picture, image, self._max_pixels)
            if meant is not None:
                check_inside(meant, rgb.shape[:2], "prompt")
        except DataError as error:
            raise HTTPException(400, str(error)) from error
        return Order(rgb=rgb, prompt=meant, domain=domain.strip() or AUTO)


def read_prompt(text: str) -> ImagePrompt | None:
    """A prompt as JSON, or None for an empty text. Raises DataError."""
    if not text.strip():
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f'prompt: not valid JSON ({error}); expected such as {{"box": [x0, y0, x1, y1]}}') from error
    return parse_prompt(entry, "prompt")


def decode_picture(content: BinaryIO, max_pixels: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8. Its size is read from its head, before anything is decoded.

    Raises DataError, or HTTPException 413 for more than `max_pixels`."""
    try:
        with Image.open(content, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise _too_large(f"{width} x {height} px", max_pixels)
            return to_rgb(picture)
    except Image.DecompressionBombError as error:
        raise _too_large("far too many pixels", max_pixels) from error
    except PICTURE_ERRORS as error:
        raise DataError(f"image: cannot be read as a picture ({', '.join(FORMATS)}): {error}") from error


def _too_large(found: str, max_pixels: int) -> HTTPException:
    return HTTPException(413, f"image: {found}; this server takes up to {max_pixels / 1e6:g} megapixels")
