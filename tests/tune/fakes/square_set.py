"""A data set of one picture for each split, for trainings that do not look at it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from infosam.data.store import import_dataset


def import_square(source: Path, out: Path) -> Path:
    """Draws the pictures in the empty folder `source`; returns the data set, `out`."""
    picture = np.zeros((16, 16, 3), np.uint8)
    for number, split in enumerate(("train", "val", "test")):
        picture[4:12, 4 : 9 + number] = 255
        Image.fromarray(picture).save(source / f"{number}.png")
        Image.fromarray(picture[..., 0]).save(source / f"{number}-mask.png")
        (source / f"{split}.csv").write_text(f"image,label\n{number}.png,{number}-mask.png\n")
    import_dataset(source, domain="square", out=out)
    return out
