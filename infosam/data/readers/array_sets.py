"""Sets in NumPy's files: whole sets in a few arrays, or an npz for each case that holds its image and its mask."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infosam.data.card import Split
from infosam.data.formats.arrays import Array, Role, bands_axis, load
from infosam.data.formats.contract import Box, Levels, shape_text
from infosam.data.formats.levels import levels_of, to_8_bit
from infosam.data.masks import Unusable, distinct
from infosam.data.pairs import Labels, Listed, ReadOptions
from infosam.data.readers.contract import Listing
from infosam.data.splits import SPLIT_WORDS
from infosam.errors import DataError

WORDS: Mapping[str, Role] = {
    **dict.fromkeys(("image", "images", "img", "imgs", "data", "x", "input", "inputs"), "image"),
    **dict.fromkeys(("mask", "masks", "label", "labels", "gt", "gts", "seg", "y", "target", "targets"), "mask"),
}
LOOKED_AT = 5  # archives, to tell whether a source is kept so
_LOADING = Lock()  # two threads must not load one array twice


@dataclass(frozen=True)
class Member:
    """An array of a file."""

    path: Path
    name: str | None  # in an archive; None: the file is the array

    def __str__(self) -> str:
        return self.name or self.path.stem


Halves = dict[Role, Member]


class ArraySets:
    """train_images and train_label in one npz, as MedSegBench has them; X_train.npy and Y_train.npy; images.npy and
    masks.npy; or many npz with an image and a label each."""

    layout = (
        "NumPy arrays of whole sets, such as an npz with train_images and train_label, or X_train.npy and Y_train.npy; "
        "or an npz with image and label for each case"
    )

    def fits(self, source: Path) -> bool:
        try:
            return bool(_sets(source)) or any(_is_case(path) for _, path in _archives(source)[:LOOKED_AT])
        except OSError:
            return False

    def read(self, source: Path, options: ReadOptions, problems: list[str]) -> Listing:
        listed: list[Listed] = []
        for split, halves in _sets(source).items():
            listed += _of_set(split, halves)
        root = source if source.is_dir() else source.parent
        for split, path in [] if listed else _archives(source):
            row = path.relative_to(root).as_posix()
            if _is_case(path):
                listed.append(Listed(image_name=str(path), mask_name=str(path), split=split, row=row))
            else:
                problems.append(f"{row}: holds {', '.join(_names(path)) or 'nothing'}; name its arrays image and label")
        return Listing(root=root, listed=listed)


def _sets(source: Path) -> dict[Split | None, Halves]:
    """Images and masks of each split that has both."""
    if source.is_file():
        members = [Member(source, name) for name in _names(source)]
    else:
        archives = sorted(source.glob("*.npz"))
        members = [Member(path, None) for path in sorted(source.glob("*.npy"))]
        members += [Member(archives[0], name) for name in _names(archives[0])] if len(archives) == 1 else []
    found: dict[Split | None, Halves] = {}
    for member in members:
        if (said := _said(str(member))) is not None:
            found.setdefault(said[0], {}).setdefault(said[1], member)
    return {split: halves for split, halves in found.items() if len(halves) == 2}


def _said(name: str) -> tuple[Split | None, Role] | None:
    """The split and the role that a name speaks of, if of nothing else."""
    words = re.split(r"[-_. ]", name.lower())
    roles = [WORDS[word] for word in words if word in WORDS]
    splits = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
    if len(roles) != 1 or len(splits) > 1 or len(roles) + len(splits) < len(words):
        return None
    return (splits[0] if splits else None), roles[0]


def _archives(source: Path) -> list[tuple[Split | None, Path]]:
    """Archives in a folder and in its folders train, val and test."""
    if not source.is_dir():
        return []
    places = [
        (SPLIT_WORDS[path.name.lower()], path) for path in sorted(source.iterdir()) if path.name.lower() in SPLIT_WORDS
    ]
    return [(split, path) for split, place in [(None, source), *places] for path in sorted(place.glob("[!.]*.npz"))]


def _names(path: Path) -> list[str]:
    try:
        if not path.is_file() or path.suffix.lower() != ".npz":
            return []
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []


def _is_case(path: Path) -> bool:
    roles = [said[1] for name in _names(path) if (said := _said(name)) is not None]
    return {"image", "mask"} <= set(roles)


def _of_set(split: Split | None, halves: Halves) -> Iterator[Listed]:
    """A pair for each picture of a split. Raises DataError if the arrays do not belong together."""
    image, mask = halves["image"], halves["mask"]
    try:
        stack, drawn = _images(image, mask)[0], _masks(mask)
    except Unusable as problem:
        raise DataError(str(problem)) from problem
    if (len(drawn), *drawn.shape[1:]) != (stack.count, *stack.size):
        theirs = f"{mask} has the shape {shape_text(drawn.shape)}, {image} holds {stack.count} pictures of "
        raise DataError(f"{mask.path}: {theirs}{shape_text(stack.size)}; every picture needs a mask of its size")
    whole = tuple(distinct(drawn))
    for number in range(stack.count):
        yield Listed(
            image_name=str(_path(image, number, ".png")),
            mask_name=str(_path(mask, number, ".png")),
            split=split,
            row=f"{image.path.name}: {image}[{number}]",
            image_content=partial(_picture, image, mask, number),
            mask_content=partial(_labels, mask, number, whole),
        )


def _path(member: Member, number: int, ending: str) -> Path:
    return member.path / f"{member}_{number:06}{ending}"


@lru_cache(maxsize=4)
def _array(member: Member, role: Role) -> NDArray[np.generic]:
    return load(member.path, role, member.name)


def _masks(member: Member) -> NDArray[np.generic]:
    """(N, H, W). Raises Unusable."""
    with _LOADING:
        array = _array(member, "mask")
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim != 3 or array.dtype.kind not in "biuf":
        found = f"{array.dtype} of the shape {shape_text(array.shape)}"
        raise Unusable(f"{member.path}: {member} is {found}; masks are numbers (N, H, W), a value for each pixel")
    return array.view(np.uint8) if array.dtype == np.bool_ else array


def _images(member: Member, mask: Member) -> tuple[Array, Levels]:
    """N pictures, and what of their values is black and white, once for all of them. Raises Unusable."""
    drawn = _masks(mask).shape
    with _LOADING:
        return _opened(member, drawn)


@lru_cache(maxsize=2)
def _opened(member: Member, drawn: tuple[int, ...]) -> tuple[Array, Levels]:
    array: NDArray[Any] = _array(member, "image")
    axis = bands_axis(array.shape, drawn) if array.ndim == 4 else None
    array = array if axis is None else np.moveaxis(array, axis, -1)
    if axis is None and array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    colour = axis is not None
    if array.ndim != 3 + colour or array.dtype.kind not in "biuf":
        found = f"{array.dtype} of the shape {shape_text(array.shape)}"
        raise Unusable(
            f"{member.path}: {member} is {found}; images are numbers (N, H, W), (N, H, W, 3) or (N, 3, H, W)"
        )
    stack = Array(array, (1, 2, 3) if colour and array.shape[-1] > 2 else (1,), colour=colour)
    return stack, levels_of(stack, None)


def _picture(member: Member, mask: Member, number: int) -> NDArray[np.uint8]:
    stack, levels = _images(member, mask)
    return to_8_bit(stack.values(number, Box(0, 0, *stack.size)), levels)


def _labels(member: Member, number: int, whole: tuple[float, ...]) -> Labels:
    return Labels(np.array(_masks(member)[number]), whole)
