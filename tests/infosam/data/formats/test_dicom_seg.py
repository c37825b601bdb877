from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from small_sources import encoded, pixels
from small_volumes import dicom, intensities, labels, nifti, save_dicom, write_seg, write_series

from infosam.data.manifest import discover
from infosam.data.pairs import MaskChoice, PartOptions, ReadOptions
from infosam.data.pixels import open_both
from infosam.errors import DataError


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by position"])
def test_segments_lie_on_the_slices_they_were_drawn_on(named: bool, tmp_path: Path) -> None:
    source = dicom(tmp_path)
    write_seg(source / "masks/p0.dcm", source / "images/p0", {1: labels(0) > 0}, named=named)
    options = ReadOptions(parts=PartOptions(slices="all"))
    pairs = sorted(discover(source, options).pairs, key=lambda pair: pair.row)[:4]
    for pair, mask in zip(pairs, labels(0), strict=True):
        np.testing.assert_array_equal(open_both(pair)[1].masks[0], mask == 1)


def test_segments_are_classes(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    left, right = labels(0) > 0, np.zeros(labels(0).shape, np.bool_)
    right[3, :2, :5] = True
    for number in range(3):
        write_seg(source / f"masks/p{number}.dcm", source / f"images/p{number}", {1: left, 2: right})
    options = ReadOptions(choice=MaskChoice(classes=("2",)))
    pairs = discover(source, options).pairs
    assert {pair.image.stem[3:] for pair in pairs} == {"slice_3"}
    assert {int(open_both(pair, options.choice)[1].masks[0].sum()) for pair in pairs} == {10}


def refusal(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        discover(source)
    return str(caught.value)


def test_segments_that_overlap_are_refused(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    write_seg(source / "masks/p0.dcm", source / "images/p0", {1: labels(0) > 0, 2: labels(0) > 0})
    assert "p0.dcm: segments overlap; save one file for each" in refusal(source)


def test_segments_of_another_series_are_refused(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    write_series(tmp_path / "far", intensities(0), "far", ImagePositionPatient=[7, 7, 7])
    other = {1: (labels(0) > 0)[:1]}
    other[1][0, 0, 0] = True
    write_seg(source / "masks/p0.dcm", tmp_path / "far", other)
    assert "p0.dcm: frame 0 is of no slice of its image" in refusal(source)


def test_shares_are_refused(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    dataset = pydicom.dcmread(source / "masks/p0.dcm")
    dataset.SegmentationType = "FRACTIONAL"
    save_dicom(source / "masks/p0.dcm", dataset)
    assert "p0.dcm: the segments are shares, not yes or no; convert it to NIfTI" in refusal(source)


def test_segments_of_other_images_are_refused(tmp_path: Path) -> None:
    source = dicom(tmp_path / "series")
    volumes = nifti(tmp_path / "volumes")
    (volumes / "masks/v0_seg.nii.gz").unlink()
    (source / "masks/p0.dcm").rename(volumes / "masks/v0_seg.dcm")
    assert "v0_seg.dcm: a DICOM-SEG belongs to a folder of DICOM slices" in refusal(volumes)
    (volumes / "images/v0.nii.gz").unlink()
    (volumes / "images/v0.png").write_bytes(encoded(pixels(0)))
    assert "v0_seg.dcm: a DICOM-SEG belongs to a folder of DICOM slices, not to a picture" in refusal(volumes)
