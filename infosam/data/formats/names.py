"""Which files are pictures, volumes or series, told by their names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from infosam.data.pairs import PICTURE_SUFFIXES

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ARRAY_SUFFIXES = (".npy", ".npz")
TIFF_SUFFIXES = (".tif", ".tiff")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *ARRAY_SUFFIXES, *DICOM_SUFFIXES)
CHANNEL = r"(.*)_(\d{4})"  # nnU-Net's names of the channels of a scan, counted from 0
DICOM_MARK, DICOM_MARK_AT = b"DICM", 128


def is_readable(path: Path) -> bool:
    """Whether the name is that of a picture or volume and not of hidden data of a system, such as ._a.jpg."""
    name = path.name.lower()
    if name.startswith(".") or os.path.isdir(path):  # False, not an error, for what may not be looked at
        return False
    known = (*PICTURE_SUFFIXES, *NIFTI_SUFFIXES, *ARRAY_SUFFIXES)
    return name.endswith(known) or is_dicom(path)


def is_dicom(path: Path) -> bool:
    """By the ending, or by the content of a file without any, or with a number such as the names of scanners have;
    not the table of contents of a disc."""
    if path.suffix and not _is_number(path.suffix):
        return path.suffix.lower() in DICOM_SUFFIXES
    if path.name.upper() == "DICOMDIR":
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(DICOM_MARK_AT)
            return file.read(len(DICOM_MARK)) == DICOM_MARK
    except (OSError, ValueError):
        return False


def _is_number(suffix: str) -> bool:
    return re.fullmatch(r"\.\d+", suffix) is not None


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the name has one of these endings, in small or capital letters."""
    return path.name.lower().endswith(suffixes)


def without_suffix(path: Path) -> Path:
    """The path without its ending; .nii.gz is one ending, and the last part of 1.2.840.113 is none."""
    if _is_number(path.suffix):
        return path
    return path.with_suffix("").with_suffix("") if has_suffix(path, (".nii.gz",)) else path.with_suffix("")


def dicoms_in(folder: Path) -> list[Path]:
    """DICOM files directly in a folder, sorted by name."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_dicom(path))
    except OSError:
        return []
