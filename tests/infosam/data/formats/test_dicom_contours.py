from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from small_sources import SIZE, encoded, pixels
from small_volumes import dicom, nifti, save_dicom, write_contours

from infosam.data.manifest import discover, list_pairs
from infosam.data.pairs import MaskChoice, PartOptions, ReadOptions
from infosam.data.pixels import open_both
from infosam.errors import DataError

Points = list[tuple[float, float]]


def rectangle(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def drawn(source: Path, *classes: str, slices: str = "all") -> list[np.ndarray]:
    """The masks of the first patient, slice by slice."""
    options = ReadOptions(choice=MaskChoice(classes=classes), parts=PartOptions(slices=slices))
    pairs = sorted(discover(source, options).pairs, key=lambda pair: pair.row)
    return [open_both(pair, options.choice)[1].masks[0] for pair in pairs if pair.image.name.startswith("p0")]


def refusal(source: Path, *classes: str) -> str:
    with pytest.raises(DataError) as caught:
        drawn(source, *classes)
    return str(caught.value)


def expected(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def test_contours_are_filled_on_their_slices(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    contours = [(1, rectangle(3, 5, 20, 12)), (2, [(4.0, 4.0), (9.9, 4.0), (4.0, 9.9)])]
    write_contours(source / "masks/p0.dcm", source / "images/p0", {"GTV": contours})
    masks = drawn(source)
    assert [mask.any() for mask in masks] == [False, True, True, False]
    np.testing.assert_array_equal(masks[1], expected(5, 12, 3, 20))
    assert masks[2].sum() == 15  # 5 + 4 + 3 + 2 + 1 centres


def test_turned_slices_and_a_folder_of_one_file_are_understood(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    for path in (source / "images/p0").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelSpacing = [2.0, 0.5]
        save_dicom(path, dataset)
    (source / "masks/p0.dcm").unlink()
    write_contours(source / "masks/p0/rs.dcm", source / "images/p0", {"GTV": [(3, rectangle(0, 0, 32, 2))]})
    np.testing.assert_array_equal(drawn(source)[3], expected(0, 2, 0, 32))


def test_inner_contours_are_holes_and_regions_of_a_choice_are_united(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    ring = [(1, rectangle(2, 2, 20, 20)), (1, rectangle(6, 6, 12, 12)), (1, rectangle(25, 2, 30, 6))]
    regions = {"ring": ring, "middle": [(1, rectangle(8, 8, 10, 10))], "BODY": [(1, rectangle(0, 0, 32, 24))]}
    for number in range(3):
        write_contours(source / f"masks/p{number}.dcm", source / f"images/p{number}", regions)
    whole = expected(2, 20, 2, 20) ^ expected(6, 12, 6, 12) ^ expected(2, 6, 25, 30)
    np.testing.assert_array_equal(drawn(source, "ring", slices="labelled")[0], whole)
    np.testing.assert_array_equal(drawn(source, "1", "middle", slices="labelled")[0], whole | expected(8, 10, 8, 10))


def test_several_regions_without_a_choice_are_refused(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    regions = {"GTV": [(1, rectangle(2, 2, 9, 9))], "BODY": [(1, rectangle(0, 0, 32, 24))]}
    write_contours(source / "masks/p0.dcm", source / "images/p0", regions)
    assert "p0.dcm: holds 2 regions (1 'GTV', 2 'BODY'); choose with --class, such as --class 'GTV'" in refusal(source)


def test_patients_without_the_chosen_region_are_left_out(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    for number, name in enumerate(("GTV", "other", "GTV")):
        (source / f"images/p3{number}").mkdir()
        for path in (source / f"images/p{number}").iterdir():
            path.rename(source / f"images/p3{number}" / path.name)
        (source / f"images/p{number}").rmdir()
        (source / f"masks/p{number}.dcm").unlink()
        write_contours(
            source / f"masks/p3{number}.dcm",
            source / f"images/p3{number}",
            {name: [(n, rectangle(2, 2, 9, 9)) for n in range(3)]},
        )
    listing, problems = list_pairs(source, ReadOptions(choice=MaskChoice(classes=("GTV",))))
    assert problems == []
    assert {pair.image.parent.name for pair in listing.listed} == {"p30", "p32"}
    assert "6 of 12 slices and tiles without an object left out; --slices all keeps them" in listing.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ContourGeometricType": "POINT"}, "no region has closed contours"),
        ({"ContourData": ["1", "2"]}, "the header of the mask makes no sense"),
        ({"ContourData": [f"{n}.5" for n in range(9)]}, "lies on no slice of its image; give it to the series"),
    ],
    ids=["points", "half a point", "elsewhere"],
)
def test_what_cannot_be_drawn_is_refused(change: dict[str, object], words: str, tmp_path: Path) -> None:
    source = dicom(tmp_path)
    write_contours(source / "masks/p0.dcm", source / "images/p0", {"GTV": [(1, rectangle(2, 2, 9, 9))]}, **change)
    said = refusal(source)
    assert "p0.dcm: " in said
    assert words in said


def test_an_open_line_in_a_chosen_region_is_refused(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    regions = {"GTV": [(1, rectangle(2, 2, 9, 9))]}
    write_contours(source / "masks/p0.dcm", source / "images/p0", regions, ContourGeometricType="OPEN_PLANAR")
    assert "contours of the kind OPEN_PLANAR, which have no inside" in refusal(source, "1")


@pytest.mark.parametrize("cut", [600, -40])
def test_a_file_cut_short_is_refused_also_where_a_region_is_chosen(cut: int, tmp_path: Path) -> None:
    source = dicom(tmp_path)
    path = write_contours(source / "masks/p0.dcm", source / "images/p0", {"GTV": [(1, rectangle(2, 2, 9, 9))]})
    path.write_bytes(path.read_bytes()[:cut])
    said = refusal(source, "1")
    assert "p0.dcm: " in said
    assert said.endswith("; export it again")


FUZZED = settings(max_examples=60, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZED
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_changed_byte_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    kept = tmp_path / "kept.dcm"
    if not kept.exists():
        source = dicom(tmp_path / "set")
        write_contours(kept, source / "images/p0", {"GTV": [(1, rectangle(2, 2, 9, 9)), (2, rectangle(3, 3, 5, 5))]})
    content = bytearray(kept.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "set/masks/p0.dcm").write_bytes(bytes(content))
    with suppress(DataError):
        drawn(tmp_path / "set")


def test_another_frame_of_reference_is_refused(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    path = write_contours(source / "masks/p0.dcm", source / "images/p0", {"GTV": [(1, rectangle(2, 2, 9, 9))]})
    space, dataset = Dataset(), pydicom.dcmread(path)
    space.FrameOfReferenceUID = "1.2.3"
    dataset.ReferencedFrameOfReferenceSequence = Items([space])
    save_dicom(path, dataset)
    for file in (source / "images/p0").iterdir():
        image = pydicom.dcmread(file)
        image.FrameOfReferenceUID = "1.2.4"
        save_dicom(file, image)
    assert "p0.dcm: drawn in another frame of reference" in refusal(source)


def test_contours_of_other_images_are_refused(tmp_path: Path) -> None:
    source = dicom(tmp_path / "series")
    made = write_contours(tmp_path / "rs.dcm", source / "images/p0", {"GTV": [(1, rectangle(2, 2, 9, 9))]})
    volumes = nifti(tmp_path / "volumes")
    (volumes / "masks/v0_seg.nii.gz").unlink()
    made.rename(volumes / "masks/v0_seg.dcm")
    assert "v0_seg.dcm: contours (RTSTRUCT) belong to a folder of DICOM slices, not to another" in refusal(volumes)
    (volumes / "images/v0.nii.gz").unlink()
    (volumes / "images/v0.png").write_bytes(encoded(pixels(0)))
    assert "v0_seg.dcm: contours (RTSTRUCT) belong to a folder of DICOM slices, not to a picture" in refusal(volumes)


def test_slices_without_positions_are_refused(tmp_path: Path) -> None:
    source = dicom(tmp_path)
    write_contours(source / "masks/p0.dcm", source / "images/p0", {"GTV": [(1, rectangle(2, 2, 9, 9))]})
    for path in (source / "images/p0").iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.ImagePositionPatient
        save_dicom(path, dataset)
    assert "p0.dcm: the slices of its image do not say where they lie" in refusal(source)
