"""Masks on disk: one PNG per image, or one COCO file of all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from infosam.checkpoint import save_json
from infosam.mask_codes import coco_of, png_of

MaskFormat = Literal["png", "coco"]
FROZEN = "object"
"""Name of the category of masks that no adapter made."""


class MaskWriter(Protocol):
    """Takes the masks of a run, one after the other."""

    def add(self, name: PurePath, mask: NDArray[np.bool_], domain: str | None) -> None:
        """The mask (H, W) of the image of that name, made by the adapter of `domain`, or by frozen SAM."""
        ...

    def finish(self) -> Path:
        """What was written: a folder or a file."""
        ...


class PngMasks:
    """`masks/NAME.png`, 255 on the object and 0 elsewhere."""

    def __init__(self, out: Path) -> None:
        self._folder = out / "masks"
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: PurePath, mask: NDArray[np.bool_], domain: str | None) -> None:
        """See MaskWriter."""
        file = self._folder / name.with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png_of(mask))

    def finish(self) -> Path:
        """See MaskWriter."""
        return self._folder


class CocoMasks:
    """`masks.json`: COCO with run lengths, a category per domain; an image without object has no annotation."""

    def __init__(self, out: Path) -> None:
        self._file = out / "masks.json"
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[str, int] = {}

    def add(self, name: PurePath, mask: NDArray[np.bool_], domain: str | None) -> None:
        """See MaskWriter."""
        number = len(self._images) + 1
        height, width = mask.shape
        self._images.append({"id": number, "file_name": name.as_posix(), "height": height, "width": width})
        if not mask.any():
            return
        category = self._categories.setdefault(domain or FROZEN, len(self._categories) + 1)
        self._annotations.append({"id": number, "image_id": number, "category_id": category, **coco_shape(mask)})

    def finish(self) -> Path:
        """See MaskWriter."""
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        content = {"images": self._images, "annotations": self._annotations, "categories": categories}
        save_json(content, self._file)
        return self._file


WRITERS: Mapping[MaskFormat, type[PngMasks] | type[CocoMasks]] = {"png": PngMasks, "coco": CocoMasks}


def coco_shape(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Segmentation, area, box (x, y, width, height) and crowd flag of a mask (H, W) that is not empty.

    The segmentation is in compressed run lengths."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return {
        "segmentation": coco_of(mask),
        "area": int(mask.sum()),
        "bbox": [int(side) for side in box],
        "iscrowd": 0,
    }
