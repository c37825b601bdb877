"""Each mask beside its image, in one folder or in one for each split, class or patient: 104_sat.jpg, 104_mask.png."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from infosam.data.card import Split
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.readers.contract import Listing
from infosam.data.readers.lists import unread_lists
from infosam.data.readers.pairing import Sides, matched
from infosam.data.readers.pictures import folders_in, pictures_in
from infosam.data.readers.series import Names
from infosam.data.splits import SPLIT_WORDS
from infosam.errors import DataError

MASK_NAME = re.compile(
    r"(^|[_\-. ])(mask|masks|seg|segmentation|label|labels|gt|groundtruth|annotation)([_\-. ]|\d*$)", re.I
)
PHOTO_SUFFIXES = (".jpg", ".jpeg")
DRAWN_SUFFIXES = (".png", ".gif", ".bmp")
SPLIT_LIKE = re.compile(rf"({'|'.join(SPLIT_WORDS)})[^a-z]|({'|'.join(SPLIT_WORDS)})(crop|set|data)", re.I)
LOOKED_AT = 2  # levels of folders, to tell whether a source is of this kind: it may be a whole home folder
Told = tuple[Names, Names]  # images, masks


class Beside:
    """Images and masks in one folder, told apart by a word in the names of the masks, or as a.jpg and a.png."""

    layout = (
        "images and masks side by side, such as 104_sat.jpg and 104_mask.png or 104.jpg and 104.png, perhaps in "
        "train/, val/ and test/"
    )

    def fits(self, source: Path) -> bool:
        try:
            return source.is_dir() and any(told for _, _, told in _places(source, [], LOOKED_AT))
        except DataError:
            return False

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        listed: list[Listed] = []
        notes: dict[str, None] = {}
        unread: list[str] = []
        for split, place, told in _places(source, problems):
            if told is None:
                unread.append(place.name + "/")
                continue
            found = matched(Sides(source, place, place), *told, split, problems)
            listed += found.listed
            notes |= dict.fromkeys(found.notes or ("images are told from masks by the ending: a.jpg, a.png",))
            if split is None and (odd := [path.name for path in folders_in(place) if SPLIT_LIKE.match(path.name)]):
                notes[
                    f"taken together, though their names speak of splits: {', '.join(odd)}; rename them train, val and "
                    "test, or say --images and --masks with SPLIT"
                ] = None
        if unread:
            notes[f"not read: {', '.join(unread)}: images and masks cannot be told apart there"] = None
        return Listing(root=source, listed=listed, notes=(*notes, *unread_lists(source)))


def _places(
    source: Path, problems: list[str], depth: int | None = None
) -> Iterator[tuple[Split | None, Path, Told | None]]:
    """The folders of splits, or else the source itself, each with what was told apart in it."""
    given = [path for path in folders_in(source) if path.name.lower() in SPLIT_WORDS]
    found = [(SPLIT_WORDS[path.name.lower()], path, _told(pictures_in(path, problems, depth))) for path in given]
    if any(told for _, _, told in found):
        yield from found
    else:
        yield None, source, _told(pictures_in(source, problems, depth))


def _told(names: Names) -> Told | None:
    """Images and masks, if they can be told apart in every folder that holds masks."""
    drawn = {name: paths for name, paths in names.items() if MASK_NAME.search(Path(name).name)}
    pictures = {name: paths for name, paths in names.items() if name not in drawn}
    if drawn and {posixpath.dirname(name) for name in drawn} <= {posixpath.dirname(name) for name in pictures}:
        return pictures, drawn
    if not drawn and (both := _by_ending(names)):
        return both
    return None


def _by_ending(names: Names) -> Told | None:
    """A photograph and a drawing under each name: JPEG is not what masks are kept in if a PNG is there."""
    pictures: Names = {}
    drawn: Names = {}
    for name, paths in names.items():
        photos = [path for path in paths if path.suffix.lower() in PHOTO_SUFFIXES]
        others = [path for path in paths if path.suffix.lower() in DRAWN_SUFFIXES]
        if len(paths) != 2 or len(photos) != 1 or len(others) != 1:
            return None
        pictures[name], drawn[name] = photos, others
    return (pictures, drawn) if names else None
