"""TIFF of several pages, as microscopes store stacks: each page is a slice, or with `bands` a colour."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infosam.data.formats.contract import KEPT, Box, Stack, chosen_bands, reading
from infosam.data.formats.geotiff import quiet
from infosam.data.formats.names import TIFF_SUFFIXES, has_suffix
from infosam.data.masks import Unusable, mask_values
from infosam.data.pairs import PartOptions
from infosam.data.pixels import PICTURE_ERRORS, open_picture_file, own_pages

PLAIN = ("L", "I", "F")


class Pages(Stack):
    """Pages of one size, each read when it is needed; or one picture of which they are the bands."""

    uses = frozenset({"bands", "window"})

    def __init__(self, path: Path, kind: Literal["image", "mask"], pages: list[int], bands: tuple[int, ...]) -> None:
        self._path, self._kind, self._pages, self._bands = path, kind, pages, bands
        self._lock = Lock()
        self._image = open_picture_file(path)  # stays open: from a new one every page would have to be found again
        self.size = (self._image.height, self._image.width)
        self.count = 1 if bands else len(pages)
        self.sliced = not bands
        self.plane = "" if bands else "page"
        self.levels = KEPT if self._page(0).dtype == np.uint8 else None

    def __del__(self) -> None:
        if image := getattr(self, "_image", None):
            image.close()

    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        top, left, height, width = box
        chosen = [self._page(band - 1) for band in self._bands] if self._bands else [self._page(index)]
        parts = [page[top : top + height : step, left : left + width : step] for page in chosen]
        return parts[0] if len(parts) == 1 else np.stack(parts, axis=2)

    def _page(self, number: int) -> NDArray[np.generic]:
        with self._lock, reading(self._path, self._kind):
            self._image.seek(self._pages[number])
            if self._kind == "mask":
                return np.array(mask_values(self._image, self._path))
            grey = self._image.mode in PLAIN or self._image.mode.startswith("I;16")
            if len(self._bands) > 1 and not grey:
                raise Unusable(f"{self._path}: its pages have colours; choose one page, such as --bands 1", "format")
            return np.array(self._image if grey else self._image.convert("RGB"))


def pages_of(path: Path) -> list[int]:
    """Numbers of the pages of a TIFF that are pictures of the size of the first; empty if there is one at most, or the
    file cannot be read. Smaller copies of a picture, for faster display, are no pages. Reads headers only."""
    if not has_suffix(path, TIFF_SUFFIXES):
        return []
    try:
        if not path.is_file():
            return []  # a pipe would never end
        with quiet(), open_picture_file(path) as image:
            found = own_pages(image) if image.format == "TIFF" else []
            return found if len(found) > 1 else []
    except PICTURE_ERRORS:
        return []  # opening it as a picture says what is wrong


def open_pages(path: Path, kind: Literal["image", "mask"], pages: list[int], parts: PartOptions) -> Pages:
    """Pages as slices, or those of `parts.bands` as the bands of one picture. Raises Unusable."""
    bands = chosen_bands(parts.bands if kind == "image" else (), len(pages), path)
    with reading(path, kind):
        return Pages(path, kind, pages, bands)
