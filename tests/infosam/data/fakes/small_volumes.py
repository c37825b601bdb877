"""Small sources of each format, three files of four pictures of 24 x 32 px, written with the formats' own libraries.

In each volume pictures 1 and 2 have an object, 0 and 3 have none."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import rasterio
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from small_sources import SIZE, truth

from infosam.data.manifest import discover
from infosam.data.pairs import PartOptions, ReadOptions
from infosam.data.pixels import open_both

FILES, SLICES, LABELLED = 3, 4, (1, 2)
SEG_STORAGE, CONTOURS_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.481.3"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def intensities(number: int) -> NDArray[np.int16]:
    """(slices, rows, columns) from -1000 to 2000, as CT has them."""
    return np.random.default_rng(number).integers(-1000, 2000, (SLICES, *SIZE), dtype=np.int16)


def labels(number: int) -> NDArray[np.uint8]:
    """(slices, rows, columns) of 0 and 1."""
    found = np.zeros((SLICES, *SIZE), np.uint8)
    for place in LABELLED:
        found[place] = truth(2 * number + place - 1)
    return found


def open_all(source: Path, options: ReadOptions | None = None) -> None:
    """Every picture and mask of a source."""
    for pair in discover(source, options or ReadOptions(parts=PartOptions(slices="all"))).pairs:
        open_both(pair)


# ------------------------------------------------------------------------------------------------------------ GeoTIFF


def scene(height: int, width: int, bands: int = 4, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(200, 4000, (bands, height, width), dtype=np.uint16)


def write_tiff(
    path: Path, bands: NDArray[np.generic], origin: tuple[float, float] | None = None, **more: object
) -> Path:
    """(bands, H, W) as a GeoTIFF, 10 m a pixel, if it lies anywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if origin is not None:
        more |= {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, origin[0], 0, -10, origin[1])}
    amount, height, width = bands.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=amount, dtype=bands.dtype, **more
        ) as file:
            file.write(bands)
    return path


def geotiff(folder: Path) -> Path:
    for number in range(FILES):
        write_tiff(folder / f"images/s{number}.tif", scene(*SIZE, seed=number), (1000 * number, 5000))
        write_tiff(folder / f"masks/s{number}.tif", labels(number)[1][None], (1000 * number, 5000))
    return folder


def write_pages(path: Path, pictures: NDArray[np.generic]) -> Path:
    """(pages, H, W) as one TIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(picture) for picture in pictures]
    first.save(path, save_all=True, append_images=others)
    return path


def pages(folder: Path) -> Path:
    for number in range(FILES):
        write_pages(folder / f"images/t{number}.tif", (intensities(number) + 1000).astype(np.uint16))
        write_pages(folder / f"masks/t{number}.tif", labels(number))
    return folder


# -------------------------------------------------------------------------------------------------------------- NIfTI


def write_nifti(
    path: Path, pictures: NDArray[np.generic], codes: str = "LPS", step: Sequence[float] = (1, 1, 3)
) -> Path:
    """(slices, rows, columns) that are axial, seen as radiologists do, stored in any order of axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = LPS @ np.diag([*step, 1.0])
    affine[:3, 3] = (50.0, 40.0, -30.0)
    image = nibabel.Nifti1Image(np.transpose(pictures, (2, 1, 0)), affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(codes))
    )
    nibabel.save(image.as_reoriented(turn), path)
    return path


def nifti(folder: Path) -> Path:
    for number in range(FILES):
        write_nifti(folder / f"images/v{number}.nii.gz", intensities(number))
        write_nifti(folder / f"masks/v{number}_seg.nii.gz", labels(number))
    return folder


# -------------------------------------------------------------------------------------------------------------- DICOM


def dicom_dataset(pixels: NDArray[np.generic], series: str, place: int, **more: object) -> Dataset:
    """One slice of a CT with stored values from 0 and an intercept of -1024."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(place)])
    found = Dataset()
    found.file_meta = meta
    found.SOPClassUID, found.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    found.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
    found.StudyInstanceUID = generate_uid(entropy_srcs=[series, "study"])
    found.Modality, found.PatientID, found.InstanceNumber = "CT", f"SECRET-{series}", str(place + 1)
    found.Rows, found.Columns = pixels.shape[-2:]
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.BitsAllocated = found.BitsStored = pixels.dtype.itemsize * 8
    found.HighBit, found.PixelRepresentation = found.BitsStored - 1, 0
    found.ImageOrientationPatient, found.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
    found.ImagePositionPatient = [-50, -40, 2.5 * place]
    found.RescaleSlope, found.RescaleIntercept = 1, -1024
    found.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in more.items():
        if value is None:
            delattr(found, name)
        else:
            setattr(found, name, value)
    return found


def save_dicom(path: Path, dataset: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_series(folder: Path, pictures: NDArray[np.int16], series: str, **more: object) -> Path:
    """(slices, rows, columns) in Hounsfield units; the names of the files are not in the order of the slices."""
    for place, picture in enumerate(pictures):
        stored = (picture.astype(np.int32) + 1024).astype(np.uint16)
        name = f"{(place * 7 + 3) % 10:03}.dcm"
        save_dicom(folder / name, dicom_dataset(stored, series, place, **more))
    return folder


def write_seg(path: Path, series: Path, segments: Mapping[int, NDArray[np.bool_]], *, named: bool = True) -> Path:
    """Segments (slices, rows, columns) of a series, only the slices that have any; as DICOM-SEG."""
    slices = sorted((pydicom.dcmread(file) for file in series.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    frames, groups = [], []
    for number, drawn in segments.items():
        for place, picture in enumerate(drawn):
            if not picture.any():
                continue
            frames.append(picture)
            group, identity, position, derived, source = (Dataset() for _ in range(5))
            identity.ReferencedSegmentNumber = number
            group.SegmentIdentificationSequence = Items([identity])
            position.ImagePositionPatient = slices[place].ImagePositionPatient
            group.PlanePositionSequence = Items([position])
            if named:
                source.ReferencedSOPClassUID = CTImageStorage
                source.ReferencedSOPInstanceUID = slices[place].SOPInstanceUID
                derived.SourceImageSequence = Items([source])
                group.DerivationImageSequence = Items([derived])
            groups.append(group)
    shared, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Items([orientation])
    found = dicom_dataset(np.zeros(SIZE, np.uint8), f"seg of {path.stem}", 0)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(found, name)
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = SEG_STORAGE
    found.SegmentationType, found.NumberOfFrames = "BINARY", len(frames)
    found.BitsAllocated = found.BitsStored = 1
    found.HighBit = 0
    packed = np.packbits(np.array(frames, np.uint8).ravel(), bitorder="little").tobytes()
    found.PixelData = packed + b"\0" * (len(packed) % 2)
    found.PerFrameFunctionalGroupsSequence, found.SharedFunctionalGroupsSequence = Items(groups), Items([shared])
    return save_dicom(path, found)


def write_contours(
    path: Path, series: Path, regions: Mapping[str, Sequence[tuple[int, object]]], **more: object
) -> Path:
    """Contours on slices of a series, by the names of regions; points in px, x before y, where pixel 0 reaches from 0
    to 1. As RTSTRUCT; `more` changes every contour."""
    slices = sorted((pydicom.dcmread(file) for file in series.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    names, drawn = [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        named, region, items = Dataset(), Dataset(), []
        named.ROINumber, named.ROIName = number, name
        region.ReferencedROINumber = number
        for place, points in contours:
            contour, of = Dataset(), slices[place]
            left, top, height = of.ImagePositionPatient
            rows, columns = of.PixelSpacing
            flat = [(left + (x - 0.5) * columns, top + (y - 0.5) * rows, height) for x, y in points]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(flat)
            contour.ContourData = [f"{value:.4f}" for point in flat for value in point]
            for key, value in more.items():
                setattr(contour, key, value)
            items.append(contour)
        region.ContourSequence = Items(items)
        names.append(named)
        drawn.append(region)
    found = dicom_dataset(np.zeros(SIZE, np.uint8), f"contours of {path.stem}", 0)
    for name in ("PixelData", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(found, name)
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = CONTOURS_STORAGE
    found.Modality = "RTSTRUCT"
    found.StructureSetROISequence, found.ROIContourSequence = Items(names), Items(drawn)
    return save_dicom(path, found)


def dicom(folder: Path) -> Path:
    for number in range(FILES):
        write_series(folder / f"images/p{number}", intensities(number), f"p{number}")
        write_seg(folder / f"masks/p{number}.dcm", folder / f"images/p{number}", {1: labels(number) > 0})
    return folder


def contours(folder: Path) -> Path:
    for number in range(FILES):
        write_series(folder / f"images/p{number}", intensities(number), f"p{number}")
        drawn = []
        for place in LABELLED:
            rows, columns = np.nonzero(labels(number)[place])
            left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            drawn.append((place, [(left, top), (right, top), (right, bottom), (left, bottom)]))
        write_contours(folder / f"masks/p{number}.dcm", folder / f"images/p{number}", {"GTV": drawn})
    return folder


# -------------------------------------------------------------------------------------------------------------- NumPy


def arrays(folder: Path) -> Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(FILES):
        np.save(folder / f"images/a{number}.npy", intensities(number))
        np.savez_compressed(folder / f"masks/a{number}.npz", labels(number))
    return folder


FORMATS: Mapping[str, Callable[[Path], Path]] = {
    "geotiff": geotiff, "pages": pages, "nifti": nifti, "dicom": dicom, "contours": contours, "arrays": arrays,
}  # fmt: skip
