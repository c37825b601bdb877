"""A folder for each case (a patient, a scan), with its images and masks side by side: BraTS, ACDC, KiTS."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from infosam.data.card import Split
from infosam.data.formats.names import is_readable, without_suffix
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.readers.beside import MASK_NAME
from infosam.data.readers.contract import Listing
from infosam.data.readers.folders import mask_folders, sides_of
from infosam.data.splits import SPLIT_WORDS
from infosam.errors import DataError

LOOKED_AT = 20  # folders, to tell whether a source is kept so


class Cases:
    """In each folder masks are told by a word in their names. The rest of a name, without that of the folder, says of
    which image a mask is: frame01 and frame01_gt. A mask without such a rest, as of BraTS, is of the only image, or of
    the one that the user names. In each folder there may also be one image, perhaps in images/, and a folder with a
    mask for each of its objects, of which the user may name one: the Data Science Bowl of 2018, TotalSegmentator."""

    layout = (
        "a folder for each case with its image and its mask, such as case7/case7_t1.nii.gz and case7/case7_seg.nii.gz"
    )

    def fits(self, source: Path) -> bool:
        try:
            kept = [_is_case(case) for _, case in islice(_cases(source), LOOKED_AT)] if source.is_dir() else []
            return any(kept) and False not in kept
        except (DataError, OSError):
            return False

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        finder = _Finder(source, options, problems)
        listed = [pair for split, case in _cases(source) for pair in finder.pairs_of(split, case)]
        return Listing(root=source, listed=listed, notes=tuple(finder.notes()))


def _cases(source: Path) -> Iterator[tuple[Split | None, Path]]:
    """Folders in the source or in its folders train, val and test, in the order of their names."""
    for folder in _inside(source, folders=True):
        split = SPLIT_WORDS.get(folder.name.lower())
        if split is None:
            yield None, folder
        else:
            yield from ((split, path) for path in _inside(folder, folders=True))


def _inside(folder: Path, *, folders: bool = False) -> list[Path]:
    """Readable files, or folders, directly in a folder, sorted. Raises DataError."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return [path for path in paths if (path.is_dir() if folders else is_readable(path))]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error


def _sides(case: Path) -> tuple[list[Path], list[Path]] | None:
    """Images and masks of a case that keeps its masks in a folder."""
    if sides := sides_of(case):
        return _inside(sides[0]), _inside(sides[1])
    folders, images = mask_folders(case), _inside(case)
    return (images, _inside(folders[0])) if folders and images else None


def _is_case(folder: Path) -> bool | None:
    """None: nothing can be said. A folder may also be a class with many images and masks: a case has one mask, or files
    that bear its name and number."""
    if sides := _sides(folder):
        return (len(sides[0]) == 1 and bool(sides[1])) or None
    files = _inside(folder)
    masks = [path for path in files if _is_mask(path)]
    if not masks:
        return None
    named = folder.name[-1].isdigit() and all(path.name.startswith(folder.name) for path in files)
    return len(masks) < len(files) and (named or len(masks) == 1)


def _is_mask(path: Path) -> bool:
    return MASK_NAME.search(without_suffix(path).name) is not None


def _kind(path: Path, case: Path) -> str:
    """What a name says beside the case and, of a mask, that it is one: t1, frame01, or nothing."""
    name = without_suffix(path).name
    name = name[len(case.name) :] if name.startswith(case.name) else name
    return re.sub(r"[-_. ]+", "_", MASK_NAME.sub("_", name) if _is_mask(path) else name).strip("_")


@dataclass
class _Finder:
    """Pairs the files of one case after another."""

    root: Path
    options: ReadOptions
    problems: list[str]
    skipped: Counter[str] = field(default_factory=Counter)  # kinds of images without a mask of their own
    without: int = 0  # cases without any mask

    def pairs_of(self, split: Split | None, case: Path) -> Iterator[Listed]:
        if sides := _sides(case):
            yield from self._of_sides(split, case, *sides)
            return
        files = _inside(case)
        images = [path for path in files if not _is_mask(path)]
        masks = [path for path in files if _is_mask(path)]
        if not masks:
            self.without += bool(images)
            return
        kinds = Counter(_kind(image, case) for image in images)
        if several := [kind for kind, count in kinds.items() if count > 1]:
            text = f"{case}: {kinds[several[0]]} images are called {several[0] or case.name}; remove all but one"
            self.problems.append(text)
            return
        used: list[Path] = []
        for mask in masks:
            image = self._image_of(mask, images, case)
            if image is not None:
                used.append(image)
                yield self._pair(split, case, image, mask)
        self.skipped.update(_kind(image, case) for image in images if image not in used)

    def _of_sides(
        self, split: Split | None, case: Path, images: Sequence[Path], masks: Sequence[Path]
    ) -> Iterator[Listed]:
        self.without += bool(images) and not masks
        if len(images) > 1:
            self.problems.append(f"{case}: {len(images)} images, and masks do not say of which; make folders of one")
        chosen = [mask for mask in masks if without_suffix(mask).name == self.options.mask_column]
        masks = chosen or masks
        yield from (self._pair(split, case, image, mask) for image in images[:1] for mask in masks)

    def _pair(self, split: Split | None, case: Path, image: Path, mask: Path) -> Listed:
        row, group = (path.relative_to(self.root).as_posix() for path in (mask, case))
        return Listed(image_name=str(image), mask_name=str(mask), split=split, row=row, group=group)

    def _image_of(self, mask: Path, images: Sequence[Path], case: Path) -> Path | None:
        kind, kinds = _kind(mask, case), {_kind(image, case): image for image in images}
        if kind in kinds:
            return kinds[kind]
        if not kind and len(images) == 1:
            return images[0]
        if not kind and self.options.image_column in kinds:
            return kinds[self.options.image_column]
        named = ", ".join(sorted(kinds)) or "none"
        cure = f"choose it with --image-column {min(kinds)}" if kinds and not kind else "give both the same name"
        self.problems.append(f"{mask}: which image is it of? There are {named}; {cure}")
        return None

    def notes(self) -> Iterator[str]:
        """What was left out."""
        if self.skipped:
            yield f"images without a mask of their own, not read: {', '.join(sorted(self.skipped))}"
        if self.without:
            yield f"{self.without} folders without a mask, not read"
