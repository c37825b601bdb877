"""RTSTRUCT: contours that a planning system drew beside a series, filled on its slices (PS3.3, C.8.8.5 and C.8.8.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infosam.data.formats.contract import Stack, check_memory
from infosam.data.formats.dicom import Series
from infosam.data.formats.dicom_header import positions_of, read_dataset
from infosam.data.formats.dicom_seg import Segments
from infosam.data.masks import Unusable
from infosam.data.pairs import MaskChoice
from infosam.data.readers import shapes

FILLED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
MOST_LISTED = 12
AWAY_MM = 0.5  # of a contour from its slice at most, and never more than a quarter of what slices are apart


@dataclass(frozen=True)
class Region:
    """What was outlined under one name."""

    number: int
    name: str
    contours: Sequence[tuple[str, NDArray[np.float64]]]  # kind, and points (N, 3) in mm left, posterior, superior

    def __str__(self) -> str:
        return f"{self.number} {self.name!r}"


def open_contours(path: Path, image: Stack, choice: MaskChoice) -> Segments:
    """Whether each pixel of `image` lies in the only region of a file, or in one that `choice` names or numbers.

    A pixel belongs to a contour if its centre lies in it, and to a region if it belongs to an odd number of its
    contours there, so that inner ones are holes. Raises Unusable if that is not clear, or contours are of other slices.
    """
    if not isinstance(image, Series):
        raise Unusable(
            f"{path}: contours (RTSTRUCT) belong to a folder of DICOM slices, not to another image", "format"
        )
    dataset = read_dataset(path, "mask", stop_before_pixels=True)
    try:
        regions = _regions(dataset)
        spaces = {str(item.FrameOfReferenceUID) for item in dataset.get("ReferencedFrameOfReferenceSequence") or ()}
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise Unusable(f"{path}: the header of the mask makes no sense; export it again") from error
    space = image.frames[0].space
    if space and spaces and space not in spaces:
        raise Unusable(f"{path}: drawn in another frame of reference; give it to the series it was drawn on", "size")
    check_memory(path, (image.count, *image.size), 1)
    drawn = np.zeros((image.count, *image.size), np.bool_)
    for region in _chosen(regions, choice, path):
        drawn |= _filled(region, image, path)
    return Segments(drawn)


def _regions(dataset: Any) -> list[Region]:
    names = {
        int(item.ROINumber): str(item.get("ROIName") or "") for item in dataset.get("StructureSetROISequence") or ()
    }
    found = []
    for item in dataset.get("ROIContourSequence") or ():
        number = int(item.ReferencedROINumber)
        contours = [
            (
                str(contour.ContourGeometricType),
                np.array([float(value) for value in contour.ContourData]).reshape(-1, 3),
            )
            for contour in item.get("ContourSequence") or ()
        ]
        if not all(np.isfinite(points).all() for _, points in contours):
            raise ValueError(number)
        if contours:
            found.append(Region(number, names.get(number, "").strip(), contours))
    return found


def _chosen(regions: Sequence[Region], choice: MaskChoice, path: Path) -> list[Region]:
    """None if the file has other regions than the user chose: its slices are those without the object."""
    if not regions:
        raise Unusable(f"{path}: holds no contours; export it again")
    if choice.classes:
        words = {word.strip() for word in choice.classes}
        return [region for region in regions if words & {region.name, str(region.number)}]
    filled = [region for region in regions if any(kind in FILLED for kind, _ in region.contours)]
    if not filled:
        raise Unusable(f"{path}: no region has closed contours; export it again", "mask-values")
    if len(filled) > 1:
        listed = ", ".join(map(str, filled[:MOST_LISTED])) + (", ..." if len(filled) > MOST_LISTED else "")
        said = f"holds {len(filled)} regions ({listed}); choose with --class, such as --class '{filled[0].name}'"
        raise Unusable(f"{path}: {said}", "mask-values")
    return filled


def _filled(region: Region, image: Series, path: Path) -> NDArray[np.bool_]:
    drawn = np.zeros((image.count, *image.size), np.bool_)
    for kind, points in region.contours:
        if kind not in FILLED:
            reason = f"region {region} has contours of the kind {kind}, which have no inside"
            raise Unusable(f"{path}: {reason}; export closed contours only, or choose with --class", "mask-values")
        number, flat = _on_slice(points, image, region, path)
        if len(flat) > 2:  # a point or a line has no area
            try:
                drawn[number] ^= shapes.draw([flat.ravel().tolist()], image.size)
            except shapes.BadShape as error:
                raise Unusable(f"{path}: a contour of region {region}: {error}; export it again") from error
    return drawn


def _on_slice(
    points: NDArray[np.float64], image: Series, region: Region, path: Path
) -> tuple[int, NDArray[np.float64]]:
    """The slice of a contour, and its points (N, 2) there in px, x before y, where pixel 0 reaches from 0 to 1."""
    positions = positions_of(image.frames)
    if positions is None:
        raise Unusable(f"{path}: the slices of its image do not say where they lie; save masks as pictures", "listing")
    axes = image.frames[0].axes
    assert axes is not None
    row, column = np.array(axes[:3]), np.array(axes[3:])
    heights = points @ np.cross(row, column)
    number = int(np.abs(positions - heights.mean()).argmin())
    apart = np.diff(positions).min() if len(positions) > 1 else 4 * AWAY_MM
    if np.abs(heights - positions[number]).max() > min(AWAY_MM, apart / 4):
        where = " ".join(f"{value:.1f}" for value in points[0])
        reason = f"a contour of region {region} (at {where} mm) lies on no slice of its image"
        raise Unusable(f"{path}: {reason}; give it to the series it was drawn on", "size")
    frame = image.frames[number]
    assert frame.position is not None
    away = points - np.array(frame.position)
    return number, np.stack([away @ row / frame.spacing[1], away @ column / frame.spacing[0]], axis=1) + 0.5
