from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_volumes import intensities, labels, write_nifti

from infosam.data.manifest import discover
from infosam.data.pairs import PartOptions, ReadOptions
from infosam.data.pixels import open_both
from infosam.errors import DataError


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Three scans of three channels, as nnU-Net has them."""
    for number in range(3):
        for channel in range(3):
            write_nifti(tmp_path / f"imagesTr/case_{number}_{channel:04}.nii.gz", intensities(number + 10 * channel))
        write_nifti(tmp_path / f"labelsTr/case_{number}.nii.gz", labels(number))
    return tmp_path


def stretched(volume: np.ndarray) -> np.ndarray:
    low, high = np.percentile(volume.astype(float), [0.5, 99.5])
    return np.rint(np.clip((volume - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(("bands", "shown"), [((), (0, 0, 0)), ((2,), (1, 1, 1)), ((3, 1, 2), (2, 0, 1))])
def test_channels_are_bands(bands: tuple[int, ...], shown: tuple[int, ...], scans: Path) -> None:
    found = discover(scans, ReadOptions(parts=PartOptions(bands=bands)))
    assert "volumes with up to 3 channels, a file each: --bands chooses" in " ".join(found.notes)
    assert len({pair.group for pair in found.pairs}) == 3
    pair = min(found.pairs, key=lambda pair: pair.row)
    assert pair.image.name == "case_0_0000_axial_1.png"
    picture, drawing = open_both(pair)
    for colour, channel in enumerate(shown):
        np.testing.assert_array_equal(picture.rgb[:, :, colour], stretched(intensities(10 * channel))[1])
    np.testing.assert_array_equal(drawing.masks[0], labels(0)[1] == 1)


def test_channels_that_lack_or_differ_are_refused(scans: Path) -> None:
    with pytest.raises(DataError, match=r"case_0_0000\.nii\.gz: no band 4, it has 3 bands; correct --bands"):
        discover(scans, ReadOptions(parts=PartOptions(bands=(4,))))
    write_nifti(scans / "imagesTr/case_1_0002.nii.gz", intensities(5)[:2])
    with pytest.raises(DataError, match=r"case_1_0002\.nii\.gz: this channel is 32 x 24 x 2 voxels"):
        discover(scans, ReadOptions(parts=PartOptions(bands=(1, 2, 3))))
