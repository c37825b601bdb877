from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_sources import encoded, pixels, truth, write_pictures
from small_volumes import intensities, labels, write_nifti

from infosam.data.manifest import discover
from infosam.data.pairs import ReadOptions
from infosam.errors import DataError


def test_frames_of_a_patient_stay_together_and_what_has_no_mask_is_told(tmp_path: Path) -> None:
    """As ACDC comes."""
    for number in range(4):
        for frame in ("frame01", "frame12"):
            name = f"training/patient{number}/patient{number}_{frame}"
            write_nifti(tmp_path / f"{name}.nii.gz", intensities(number))
            write_nifti(tmp_path / f"{name}_gt.nii.gz", labels(number))
        write_nifti(tmp_path / f"training/patient{number}/patient{number}_4d.nii.gz", intensities(9))
    (tmp_path / "training/patient9").mkdir()
    write_nifti(tmp_path / "training/patient9/patient9_frame01.nii.gz", intensities(9))
    found = discover(tmp_path)
    assert found.notes[:2] == ("images without a mask of their own, not read: 4d", "1 folders without a mask, not read")
    assert {pair.group for pair in found.pairs} == {f"training/patient{number}" for number in range(4)}
    for pair in found.pairs:
        assert pair.mask.parent.name.removesuffix("_gt.nii.gz") == pair.image.parent.name.removesuffix(".nii.gz")
    assert not any("by their names" in note for note in found.notes)


def test_of_several_scans_the_user_chooses_one(tmp_path: Path) -> None:
    """As BraTS comes."""
    for kind in ("flair", "t1", "seg"):
        write_pictures(tmp_path, f"BraTS_{{0}}/BraTS_{{0}}_{kind}.png", None)
    with pytest.raises(
        DataError, match=r"BraTS_0_seg\.png: which image is it of\? .* flair, t1; .*--image-column flair"
    ):
        discover(tmp_path)
    found = discover(tmp_path, ReadOptions(image_column="t1"))
    assert {pair.image.name for pair in found.pairs} == {f"BraTS_{number}_t1.png" for number in range(6)}
    assert "images without a mask of their own, not read: flair" in found.notes


def test_one_image_with_a_mask_for_each_of_its_objects(tmp_path: Path) -> None:
    """As the Data Science Bowl of 2018 comes."""
    for number in range(3):
        for place in ("images/a", "masks/b", "masks/c"):
            path = tmp_path / f"id{number}/{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = pixels(number) if place == "images/a" else truth(number).astype(np.uint8)
            path.write_bytes(encoded(content))
    assert len(discover(tmp_path).pairs) == 6
    (tmp_path / "id1/images/b.png").write_bytes(encoded(pixels(1)))
    with pytest.raises(DataError, match="id1: 2 images, and masks do not say of which"):
        discover(tmp_path)


def test_a_mask_for_each_organ_of_which_one_may_be_chosen(tmp_path: Path) -> None:
    """As TotalSegmentator comes."""
    for number in range(3):
        write_nifti(tmp_path / f"s{number}/ct.nii.gz", intensities(number))
        for organ in ("liver", "spleen"):
            write_nifti(tmp_path / f"s{number}/segmentations/{organ}.nii.gz", labels(number))
    assert len(discover(tmp_path).pairs) == 3 * 2 * 2
    found = discover(tmp_path, ReadOptions(mask_column="spleen")).pairs
    assert {pair.mask.parent.name for pair in found} == {"spleen.nii.gz"}
    assert len(found) == 3 * 2


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, "case{0}/t1.png", "case{0}/seg.png")
    (tmp_path / "case3/t1.bmp").write_bytes(b"BM")
    with pytest.raises(DataError, match="case3: 2 images are called t1; remove all but one"):
        discover(tmp_path)
