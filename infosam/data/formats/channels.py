"""Volumes of one grid, a file each, as the bands of one: the channels of a scan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infosam.data.formats.contract import Box, Stack, chosen_bands, shape_text
from infosam.data.formats.names import CHANNEL, without_suffix
from infosam.data.formats.nifti import open_volume
from infosam.data.masks import Unusable
from infosam.data.pairs import PartOptions


class Channels(Stack):
    """The same picture of several volumes."""

    sliced = True
    uses = frozenset({"bands", "window", "axis"})

    def __init__(self, volumes: Sequence[Stack]) -> None:
        first = volumes[0]
        self._volumes = volumes
        self.size, self.count, self.plane, self.affine = first.size, first.count, first.plane, first.affine
        self.nbytes = sum(volume.nbytes for volume in volumes)
        self.levels = first.levels if len({volume.levels for volume in volumes}) == 1 else None

    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        return np.stack([volume.values(index, box, step) for volume in self._volumes], axis=2)


def channels_of(path: Path) -> list[Path]:
    """All files of a scan by the name of one: case_7_0000.nii.gz, case_7_0001.nii.gz, ...; empty for other names, and
    if there is one only."""
    match = re.fullmatch(CHANNEL, without_suffix(path).name)
    if not match:
        return []
    ending = path.name[len(without_suffix(path).name) :]
    numbers = range(10**4)
    found = []
    for number in numbers:
        other = path.with_name(f"{match[1]}_{number:04}{ending}")
        if not other.is_file():
            break
        found.append(other)
    return found if len(found) > 1 else []


def open_channels(paths: Sequence[Path], parts: PartOptions) -> Stack:
    """The channels of `parts.bands`, one as a volume of its own. Raises Unusable if they are of different sizes."""
    plain = PartOptions(axis=parts.axis)
    chosen = [paths[band - 1] for band in chosen_bands(parts.bands, len(paths), paths[0])]
    volumes = [open_volume(path, "image", plain) for path in chosen]
    for path, volume in zip(chosen, volumes, strict=True):
        if (volume.size, volume.count) != (volumes[0].size, volumes[0].count):
            size = shape_text((*volume.size[::-1], volume.count))
            raise Unusable(f"{path}: this channel is {size} voxels, not as {chosen[0].name}; export all on one grid")
    return volumes[0] if len(volumes) == 1 else Channels(volumes)
