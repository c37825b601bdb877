"""Small sources of images and masks, written to disk as a user would have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from infosam.data import shards
from infosam.data.store import import_dataset


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Noise, so that no two pictures are alike."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def square(height: int, width: int) -> NDArray[np.uint8]:
    """0/255 mask with the middle half of each side as object."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = 255
    return mask


@pytest.fixture
def write_pair() -> Callable[..., None]:
    """Writes images/NAME.png and masks/NAME.png below a folder."""

    def write(folder: Path, name: str, *, size: tuple[int, int] = (24, 32), seed: int | None = None) -> None:
        for kind, pixels in (
            ("images", picture(*size, seed if seed is not None else hash_of(name))),
            ("masks", square(*size)),
        ):
            path = folder / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)

    return write


def hash_of(name: str) -> int:
    """A seed from a name that is the same in every process."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(name)) % 2**31


@pytest.fixture
def csv_set(tmp_path: Path, write_pair: Callable[..., None]) -> Path:
    """A folder with train.csv (4 rows), val.csv (2) and test.csv (3)."""
    source = tmp_path / "source"
    for split, amount in (("train", 4), ("val", 2), ("test", 3)):
        names = [f"{split}_{number}" for number in range(amount)]
        for name in names:
            write_pair(source, name)
        rows = [f"images/{name}.png,masks/{name}.png" for name in names]
        (source / f"{split}.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    return source


@pytest.fixture
def more(tmp_path: Path, write_pair: Callable[..., None]) -> Path:
    """A list with two new rows for each split."""
    rows = ["image,label,split"]
    for split in ("train", "val", "test"):
        for number in (10, 11):
            write_pair(tmp_path / "more", f"{split}_{number}")
            rows.append(f"images/{split}_{number}.png,masks/{split}_{number}.png,{split}")
    (tmp_path / "more" / "list.csv").write_text("\n".join(rows))
    return tmp_path / "more" / "list.csv"


@pytest.fixture
def folder_set(tmp_path: Path, write_pair: Callable[..., None]) -> Path:
    """A folder with twenty images and masks of the same names, without splits."""
    source = tmp_path / "plain"
    for number in range(20):
        write_pair(source, f"photo {number}")
    return source


@pytest.fixture
def sharded_set(csv_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data set of `csv_set` in three files."""
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 4)
    monkeypatch.setattr(shards, "SHARD_MIB", 0)
    import_dataset(csv_set, domain="squares", out=tmp_path / "set")
    return tmp_path / "set"
