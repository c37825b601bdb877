"""What is read of a DICOM file before its pixels: where its pictures lie, how bright they are, whose they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infosam.data.formats.contract import DAMAGED, library
from infosam.data.formats.dicom_brightness import Brightness, brightness_of
from infosam.data.formats.names import dicoms_in
from infosam.data.masks import Unusable

EXTRA = "medical"
SEGMENTATION, CONTOURS = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"
# In files of several pictures these lie in groups, for each picture or shared by all.
GROUP_OF = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
}
TAGS = [
    *GROUP_OF, "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence", "SOPClassUID", "SOPInstanceUID",
    "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "PhotometricInterpretation", "PixelRepresentation", "ModalityLUTSequence", "VOILUTSequence",
    "FrameOfReferenceUID", "PixelPaddingValue", "PixelPaddingRangeLimit",
]  # fmt: skip
_READING = Lock()  # pydicom's switch for warnings is one for all threads


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a DICOM file."""

    path: Path
    number: int  # in the file, from 0
    uid: str  # of the file
    series: str
    group: str | None  # hash of the patient; None if the file names none
    size: tuple[int, int]
    order: int | None  # InstanceNumber
    position: tuple[float, ...] | None  # mm, left, posterior, superior
    axes: tuple[float, ...] | None  # directions of a row and of a column
    spacing: tuple[float, ...]  # mm between rows, and between columns
    space: str  # FrameOfReferenceUID; empty if the file names none
    brightness: Brightness
    bits: int
    inverted: bool
    padding: tuple[int, int] | None = None  # lowest and highest stored value that stands for nothing


def read_dataset(path: Path, kind: str, **options: Any) -> Any:
    """A file as pydicom has it. Raises Unusable, and DataError without pydicom. Its own messages may hold what the file
    says of the patient, so only their kind is told."""
    pydicom = library("pydicom", EXTRA, path)
    try:
        with _READING, pydicom.config.disable_value_validation():
            dataset = pydicom.dcmread(path, **options)
            for _ in dataset.iterall():
                pass  # values are looked at here, where nobody warns of them with the value
            return dataset
    except pydicom.errors.InvalidDicomError as error:
        raise Unusable(f"{path}: the {kind} is no DICOM file; export it again", "format") from error
    except (*DAMAGED, pydicom.errors.BytesLengthException) as error:
        raise Unusable(
            f"{path}: the {kind} is damaged or cut short ({type(error).__name__}); copy or export it again"
        ) from error


def frames_of(path: Path, kind: str) -> list[Frame]:
    """All pictures of a file. Raises Unusable if it has none."""
    dataset = read_dataset(path, kind, stop_before_pixels=True, specific_tags=TAGS)
    if dataset.get("SOPClassUID") == CONTOURS:
        reason = "contours (RTSTRUCT) are no pictures, but a mask for a folder of slices"
        raise Unusable(f"{path}: {reason}; put it with the masks, named after that folder", "format")
    try:
        size = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
        if 0 in size:
            raise no_pixels(path, kind)
        return [_frame(dataset, path, number, size) for number in range(int(dataset.get("NumberOfFrames") or 1))]
    except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise Unusable(f"{path}: the header of the {kind} makes no sense; export it again") from error


def no_pixels(path: Path, kind: str) -> Unusable:
    """A report, a plan or the like."""
    return Unusable(f"{path}: this DICOM file has no pixels; remove it, or name the file with the {kind}", "format")


def _frame(dataset: Any, path: Path, number: int, size: tuple[int, int]) -> Frame:
    def numbers(name: str, amount: int) -> tuple[float, ...] | None:
        found = attribute(dataset, name, number)
        values = tuple(float(value) for value in (found if hasattr(found, "__len__") else [found])) if found else ()
        return values if len(values) == amount and np.isfinite(values).all() else None

    order, patient = dataset.get("InstanceNumber"), dataset.get("PatientID") or dataset.get("StudyInstanceUID")
    return Frame(
        path=path,
        number=number,
        uid=str(dataset.get("SOPInstanceUID", "")),
        series=str(dataset.get("SeriesInstanceUID", "")),
        group=patient_group(str(patient)) if patient else None,
        size=size,
        order=None if order in (None, "") else int(order),
        position=numbers("ImagePositionPatient", 3),
        axes=numbers("ImageOrientationPatient", 6),
        spacing=numbers("PixelSpacing", 2) or (1.0, 1.0),
        space=str(dataset.get("FrameOfReferenceUID", "")),
        brightness=brightness_of(lambda name: attribute(dataset, name, number)),
        bits=int(dataset.get("BitsAllocated") or 16),
        inverted=dataset.get("PhotometricInterpretation") == "MONOCHROME1",
        padding=_padding(dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")),
    )


def _padding(value: Any, limit: Any) -> tuple[int, int] | None:
    if not isinstance(value, int):
        return None
    ends = (value, limit if isinstance(limit, int) else value)
    return min(ends), max(ends)


def attribute(dataset: Any, name: str, number: int) -> Any:
    """What a file says of one of its pictures; None if it says nothing."""
    if (value := dataset.get(name)) is not None:
        return value
    for groups, place in (("PerFrameFunctionalGroupsSequence", number), ("SharedFunctionalGroupsSequence", 0)):
        try:
            value = dataset[groups].value[place][GROUP_OF[name]].value[0].get(name)
        except (KeyError, IndexError, TypeError):
            continue
        if value is not None:
            return value
    return None


@lru_cache(maxsize=4096)
def patient_group(patient: str) -> str:
    """A name for a patient that does not give the ID away. Slow on purpose: IDs are short, and may be tried."""
    digest = hashlib.scrypt(patient.strip().encode(), salt=b"infosam patient", n=2**13, r=8, p=1, dklen=8)
    return f"patient-{digest.hex()}"


def series_in(folder: Path) -> Mapping[str, tuple[Frame, ...]]:
    """Readable pictures in a folder by their series, in the order of names."""
    return _series_in(folder, folder.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _series_in(folder: Path, changed_ns: int) -> Mapping[str, tuple[Frame, ...]]:
    found: dict[str, list[Frame]] = {}
    for path in dicoms_in(folder):
        try:
            frames = frames_of(path, "image")
        except Unusable:
            continue  # a file that is wanted is named when it is opened itself
        for frame in frames:
            found.setdefault(frame.series, []).append(frame)
    return MappingProxyType({series: tuple(frames) for series, frames in found.items()})


def in_order(frames: list[Frame], place: Path) -> list[Frame]:
    """Pictures by their position, from feet to head in axial series; without positions by their numbers. Raises
    Unusable if either says that two are the same."""
    positions = positions_of(frames)
    if positions is not None:
        order = np.argsort(positions, kind="stable")
        if len(frames) > 1 and np.diff(positions[order]).min() < 1e-3:
            raise Unusable(
                f"{place}: several slices lie at the same position; keep one phase or echo in each folder", "listing"
            )
        return [frames[int(number)] for number in order]
    numbers = [(frame.order if frame.order is not None else -1, frame.number) for frame in frames]
    if len(set(numbers)) < len(numbers):
        raise Unusable(
            f"{place}: slices have neither positions nor numbers to sort them by; give each a mask of its own",
            "listing",
        )
    return [frame for _, frame in sorted(zip(numbers, frames, strict=True), key=lambda pair: pair[0])]


def positions_of(frames: Sequence[Frame]) -> NDArray[np.float64] | None:
    """How far along their common normal pictures lie, mm; None if they do not say, or are not parallel."""
    axes = frames[0].axes
    if axes is None:
        return None
    normal = np.cross(axes[:3], axes[3:])
    found = []
    for frame in frames:
        if frame.position is None or frame.axes is None or not np.allclose(frame.axes, axes, atol=1e-3):
            return None
        found.append(float(np.dot(normal, frame.position)))
    return np.array(found, np.float64)
