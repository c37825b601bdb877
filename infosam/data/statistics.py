"""What an imported data set holds, without decoding its pictures, and a sheet with some of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from infosam.data.card import SPLITS, Split, read_card
from infosam.data.check.page import overlay_of
from infosam.data.shards import row_tables
from infosam.data.store import open_dataset
from infosam.errors import DataError, printable
from infosam.overlay import contact_sheet

CELL_PX = 256
COLUMNS = 6
QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, kw_only=True)
class SplitStatistics:
    """One split in figures."""

    split: Split
    masks: int
    images: int
    groups: int  # 0 if the source had none
    longest_px: tuple[int, int, int]  # longest side at 5, 50 and 95 %
    share: tuple[float, float, float]  # of foreground, the same
    empty: int  # masks without foreground


def statistics(folder: Path) -> list[SplitStatistics]:
    """Figures of each split that has rows. Raises DataError if `folder` is no data set."""
    columns = ["split", "group", "width", "height", "fg_fraction", "image.path"]
    rows = [row for _, _, table in row_tables(read_card(folder), columns) for row in table.to_pylist()]
    return [_of_split(split, found) for split in SPLITS if (found := [row for row in rows if row["split"] == split])]


def _of_split(split: Split, rows: list[dict[str, object]]) -> SplitStatistics:
    longest = np.array([[row["width"], row["height"]] for row in rows], dtype=np.int64).max(axis=1)
    shares = np.array([row["fg_fraction"] for row in rows], dtype=np.float64)
    small, middle, large = (int(side) for side in np.quantile(longest, QUANTILES, method="nearest"))
    little, half, much = (float(share) for share in np.quantile(shares, QUANTILES))
    return SplitStatistics(
        split=split,
        masks=len(rows),
        images=len({str(row["image"]) for row in rows}),
        groups=len({row["group"] for row in rows} - {None}),
        longest_px=(small, middle, large),
        share=(little, half, much),
        empty=int((shares == 0).sum()),
    )


def write_sheet(folder: Path, split: Split, out: Path, *, amount: int = 24) -> int:
    """Writes a picture with up to `amount` images of a split, spread evenly, with their masks over them and their ids
    above; returns how many. The ending of `out` chooses the format. Raises DataError."""
    store = open_dataset(folder)
    if store.rows(split) == 0:
        raise DataError(f"{folder}: no rows in split {split!r}; choose another --split")
    chosen = np.unique(np.linspace(0, store.rows(split) - 1, min(amount, store.rows(split))).astype(int)).tolist()
    samples = [store.read(split, index) for index in chosen]
    pictures = [_with_name(overlay_of(sample.image, sample.mask, CELL_PX), sample.id) for sample in samples]
    rows = [pictures[start : start + COLUMNS] for start in range(0, len(pictures), COLUMNS)]
    try:
        contact_sheet(rows, cell_px=max(pictures[0].size)).save(out)
    except (OSError, ValueError) as error:
        raise DataError(f"--sheet {out}: cannot be written ({error}); give the name of a PNG or JPEG") from error
    return len(pictures)


def _with_name(picture: Image.Image, name: str) -> Image.Image:
    return contact_sheet([[picture]], [printable(name)], cell_px=CELL_PX)
