"""DICOM-SEG: segments that other programs stored beside a series, drawn on its slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infosam.data.formats.contract import Stack, check_memory, shape_text
from infosam.data.formats.dicom import Series, decoded
from infosam.data.formats.dicom_header import attribute, read_dataset
from infosam.data.formats.picture import Picture
from infosam.data.masks import Unusable

BACKGROUND_HINT = "convert it to NIfTI on the grid of the images"


class Segments(Picture):
    """For every pixel of a series the number of its segment, 0 for none, or whether it is object."""

    sliced = True

    def __init__(self, labels: NDArray[np.uint16] | NDArray[np.bool_]) -> None:
        super().__init__(labels[0])
        self._labels = labels
        self.count, self.nbytes = len(labels), labels.nbytes

    def values(self, index: int, box: Any, step: int = 1) -> NDArray[np.generic]:
        top, left, height, width = box
        return self._labels[index, top : top + height : step, left : left + width : step]


def open_segments(path: Path, image: Stack) -> Segments:
    """The segments of a file on the slices of `image`. Raises Unusable if they are of other slices, or overlap."""
    if not isinstance(image, Series):
        raise Unusable(f"{path}: a DICOM-SEG belongs to a folder of DICOM slices, not to another image", "format")
    dataset = read_dataset(path, "mask", stop_before_pixels=True)
    if dataset.get("SegmentationType", "BINARY") not in ("BINARY", "LABELMAP"):
        raise Unusable(f"{path}: the segments are shares, not yes or no; {BACKGROUND_HINT}", "mask-values")
    size = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    if size != image.size:
        theirs = shape_text(image.size[::-1])
        raise Unusable(
            f"{path}: segments of {shape_text(size[::-1])} px, slices of {theirs} px; {BACKGROUND_HINT}", "size"
        )
    check_memory(path, (image.count, *size), 2)
    labels = np.zeros((image.count, *size), np.uint16)
    labelmap = dataset.get("SegmentationType") == "LABELMAP"
    frames = decoded(path, "mask", None).reshape(-1, *size).astype(np.uint16)
    for number, drawn in enumerate(frames):
        slice_number = _slice_of(dataset, number, image, path)
        segment = drawn if labelmap else (drawn > 0).astype(np.uint16) * _segment(dataset, number, path)
        if (labels[slice_number][segment > 0] > 0).any():
            raise Unusable(f"{path}: segments overlap; save one file for each", "mask-values")
        labels[slice_number] += segment
    return Segments(labels)


def _segment(dataset: Any, number: int, path: Path) -> int:
    for groups, place in (("PerFrameFunctionalGroupsSequence", number), ("SharedFunctionalGroupsSequence", 0)):
        try:
            group = dataset[groups].value[place]
            return int(group["SegmentIdentificationSequence"].value[0].ReferencedSegmentNumber)
        except (KeyError, IndexError, AttributeError, TypeError, ValueError):
            continue
    raise Unusable(f"{path}: frame {number} does not say of which segment it is; export it again")


def _slice_of(dataset: Any, number: int, image: Series, path: Path) -> int:
    """By the slice that a frame names, else by its position."""
    uids = {frame.uid: place for place, frame in enumerate(image.frames)}
    try:
        group = dataset.PerFrameFunctionalGroupsSequence[number]
        uid = str(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        if uid in uids and len(uids) == image.count:
            return uids[uid]
    except (AttributeError, IndexError, TypeError):
        pass
    position, axes = (
        attribute(dataset, "ImagePositionPatient", number),
        attribute(dataset, "ImageOrientationPatient", number),
    )
    first = image.frames[0]
    if position is not None and axes is not None and first.axes and np.allclose(axes, first.axes, atol=1e-3):
        normal = np.cross(first.axes[:3], first.axes[3:])
        for place, frame in enumerate(image.frames):
            if frame.position is None:
                continue
            away = np.abs(np.subtract(position, frame.position))
            if (
                abs(np.dot(normal, np.subtract(position, frame.position))) < 0.05
                and away.max() < min(frame.spacing) / 2
            ):
                return place
    raise Unusable(f"{path}: frame {number} is of no slice of its image; give it to the series it was drawn on", "size")
