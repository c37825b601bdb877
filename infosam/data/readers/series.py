"""Folders of DICOM slices among the pictures of a folder: one name for each that has one mask."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from pathlib import Path

from infosam.data.formats.names import is_dicom

Names = dict[str, list[Path]]  # path below a folder without ending -> files of that name


def with_series(images: Path, pictures: Names, drawn: Names) -> tuple[Names, Names]:
    """The same names, but of a folder below `images` that holds DICOM slices only, and has one mask or none, the
    folder's own: scan7/0001.dcm, scan7/0002.dcm, ... become scan7, and a mask scan7/liver becomes scan7.

    If a series is the only one below scan7, and no masks lie in such a folder, it is scan7, however deep its slices
    lie. Folders with several masks keep the names of their slices, for each slice then has a mask of its own."""
    inside: dict[str, list[str]] = defaultdict(list)
    below: dict[str, list[str]] = defaultdict(list)
    for names, found in ((pictures, inside), (drawn, below)):
        for name in names:
            found[posixpath.dirname(name)].append(name)
    pictures, drawn = dict(pictures), dict(drawn)
    series: list[str] = []
    for folder, slices in inside.items():
        masks = below[folder]
        if not folder or len(slices) < 2 or len(masks) > 1:
            continue
        if all(is_dicom(path) for name in slices for path in pictures[name]):
            for name in slices:
                del pictures[name]
            series.append(folder)
            for name in masks:
                drawn[folder] = drawn.pop(name)
    for folder in series:
        pictures[_shortest(folder, series, drawn)] = [images / folder]
    return dict(sorted(pictures.items())), dict(sorted(drawn.items()))


def _shortest(folder: str, series: list[str], drawn: Names) -> str:
    """The highest folder above a series that holds no other one, unless masks lie in folders, too."""
    parts = folder.split("/")
    for depth in range(1, len(parts)):
        above = "/".join(parts[:depth]) + "/"
        if sum(other.startswith(above) for other in series) == 1 and not any(name.startswith(above) for name in drawn):
            return above[:-1]
    return folder
