"""NIfTI volumes, turned so that every slice is seen as in a viewer, and masks turned as their image is."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from infosam.data.formats.contract import (
    KEPT,
    Box,
    Stack,
    check_memory,
    chosen_bands,
    library,
    reading,
    shape_text,
    told_bands,
)
from infosam.data.masks import Unusable
from infosam.data.pairs import PartOptions

EXTRA = "medical"
# Where columns, rows and slices run to: left, right, posterior, inferior, superior. An axial slice has the front on
# top and the patient's right on the left, as radiologists look at it.
PLANES = {"axial": ("L", "P", "S"), "coronal": ("L", "I", "P"), "sagittal": ("P", "I", "L")}
THICK = 1.5  # so much coarser than the others, voxels tell in which plane the slices were taken


class Volume(Stack):
    """One volume, or some of several along the fourth axis as colours; voxels are read when they are first needed."""

    sliced = True
    uses = frozenset({"bands", "window", "axis"})

    def __init__(
        self, path: Path, kind: str, image: Any, turn: NDArray[np.float64], plane: str, bands: tuple[int, ...]
    ) -> None:
        orientations = library("nibabel.orientations", EXTRA, path)
        self._path, self._kind, self._image, self._turn, self._bands = path, kind, image, turn, bands
        self._lock = Lock()
        self._voxels: NDArray[np.generic] | None = None
        shape = _three(image.shape)[:3]
        width, height, self.count = (int(shape[int(axis)]) for axis in np.argsort(turn[:, 0]))
        self.size = (height, width)
        self.plane = plane
        self.affine = image.affine @ orientations.inv_ornt_aff(turn, shape)
        self.nbytes = check_memory(path, image.shape, image.dataobj.dtype.itemsize)
        scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
        self.levels = KEPT if image.dataobj.dtype == np.uint8 and not scaled else None

    def values(self, index: int, box: Box, step: int = 1) -> NDArray[np.generic]:
        top, left, height, width = box
        voxels = self._loaded()
        part = voxels[left : left + width : step, top : top + height : step, index]  # columns, rows[, bands]
        part = np.swapaxes(part, 0, 1)
        if part.ndim == 3:
            channels = [band - 1 for band in self._bands]
            part = part[:, :, channels if len(channels) > 1 else channels[0]]
        slope, inter = self._image.dataobj.slope, self._image.dataobj.inter
        return part if (slope, inter) == (1, 0) else part.astype(np.float64) * slope + inter

    def _loaded(self) -> NDArray[np.generic]:
        """Voxels (columns, rows, slices[, bands]) without their scale, which would make floats of them."""
        orientations = library("nibabel.orientations", EXTRA, self._path)
        with self._lock:
            if self._voxels is None:
                with reading(self._path, self._kind):
                    raw = np.asanyarray(self._image.dataobj.get_unscaled())
                    raw = raw.reshape(_three(raw.shape))
                    self._voxels = orientations.apply_orientation(raw, self._turn)
            return self._voxels


def open_volume(
    path: Path, kind: Literal["image", "mask"], parts: PartOptions, like: NDArray[np.float64] | None = None
) -> Volume:
    """A volume cut along `parts.axis`, or turned as the volume with the affine `like`. Raises Unusable, and DataError
    without nibabel."""
    nibabel = library("nibabel", EXTRA, path)
    orientations = library("nibabel.orientations", EXTRA, path)
    with reading(path, kind, nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError):
        image = nibabel.load(path)
        usable = np.isfinite(image.affine).all() and np.linalg.det(image.affine[:3, :3]) != 0
        own = orientations.io_orientation(image.affine) if usable else np.full((3, 2), np.nan)
        if np.isnan(own).any():  # of axes that are almost none
            raise Unusable(f"{path}: its affine says nothing about directions; export it again")
    shape = _three(image.shape)
    if (len(shape) == 4 and shape[3] == 1) or len(shape) == 3:
        amount = 1
    elif len(shape) == 4 and kind == "image":
        amount = shape[3]
    else:
        raise Unusable(
            f"{path}: the {kind} has the shape {shape_text(shape)}; expected columns x rows x slices", "format"
        )
    if image.dataobj.dtype.kind not in "iuf":
        raise Unusable(f"{path}: holds {image.dataobj.dtype}, not plain numbers; save grey values", "format")
    bands = chosen_bands(parts.bands if kind == "image" else (), amount, path) or (1,)
    if like is None:
        plane = parts.axis if parts.axis != "auto" else plane_of(image.affine, shape)
        wanted = orientations.axcodes2ornt(PLANES[plane])
    else:
        plane, wanted = "", orientations.io_orientation(like)
    volume = Volume(path, kind, image, orientations.ornt_transform(own, wanted), plane, bands)
    volume.remark = told_bands(bands, amount) if amount > 1 and not parts.bands else None
    return volume


def _three(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a volume, also of a single picture."""
    return (*shape, 1) if len(shape) == 2 else tuple(shape)


def plane_of(affine: NDArray[np.float64], shape: tuple[int, ...] = ()) -> str:
    """The plane in which a volume was taken: its only one, or across the coarsest voxels; axial if they are about as
    fine as others."""
    steps = affine[:3, :3]
    single = [axis for axis, length in enumerate(shape[:3]) if length == 1]
    if len(single) == 1:
        return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(steps[:, single[0]])))]
    lengths = np.linalg.norm(steps, axis=0)
    coarsest = int(np.argmax(lengths))
    if lengths[coarsest] < THICK * max(np.delete(lengths, coarsest)):
        return "axial"
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(steps[:, coarsest])))]
