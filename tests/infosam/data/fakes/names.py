"""Sets of files of which only the names count: no reader opens pictures."""

from __future__ import annotations

from pathlib import Path

from infosam.data.pairs import ReadOptions
from infosam.data.readers.table import choose_reader


def touch(folder: Path, *names: str, numbers: int = 4) -> Path:
    """Files that hold their own name; # in a name stands for each of the first numbers."""
    for name in names:
        for number in range(numbers) if "#" in name else (0,):
            path = folder / name.replace("#", str(number))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)
    return folder


class Read:
    """What the reader of a source made of it."""

    def __init__(self, source: Path, images: str | None = None, masks: str | None = None) -> None:
        options = ReadOptions(images=images, masks=masks)
        self.problems: list[str] = []
        listing = choose_reader(source, options).read(source, options, self.problems)
        self.notes = " ".join(listing.notes)
        self.listed = listing.listed
        self.splits = {pair.image.relative_to(listing.root).as_posix(): pair.split for pair in listing.listed}
        self.masks: dict[str, list[str]] = {}
        for pair in listing.listed:
            image, mask = (path.relative_to(listing.root).as_posix() for path in (pair.image, pair.mask))
            self.masks.setdefault(image, []).append(mask)
