from __future__ import annotations

from pathlib import Path

import gdcm
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEG2000Lossless, RLELossless
from small_sources import SIZE, encoded, truth
from small_volumes import dicom_dataset, intensities, labels, open_all, save_dicom, write_nifti, write_series

from infosam import cli
from infosam.data.formats.dicom_header import patient_group
from infosam.data.manifest import Splitting, discover, list_pairs
from infosam.data.pairs import Pair, PartOptions, ReadOptions
from infosam.data.pixels import Unusable, open_both
from infosam.errors import DataError

ALL = PartOptions(slices="all")


def one(folder: Path, **more: object) -> Path:
    """Three series with npy masks in the order of the slices."""
    (folder / "masks").mkdir(parents=True)
    for number in range(3):
        write_series(folder / f"images/p{number}", intensities(number), f"p{number}", **more)
        np.save(folder / f"masks/p{number}.npy", labels(number))
    return folder


def read(source: Path, parts: PartOptions = ALL) -> list[Pair]:
    return sorted(discover(source, ReadOptions(parts=parts)).pairs, key=lambda pair: pair.row)


def grey(pair: Pair) -> np.ndarray:
    return open_both(pair)[0].rgb[:, :, 0]


def between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def refusal(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(source)
    return str(caught.value)


# -------------------------------------------------------------------------------------------------- order, brightness


def test_slices_come_by_position_in_units_of_the_scanner(tmp_path: Path) -> None:
    pairs = read(one(tmp_path))[:4]
    assert [pair.image.name for pair in pairs] == [f"p0_slice_{number}.png" for number in range(4)]
    low, high = np.percentile(intensities(0).astype(float), [0.5, 99.5])
    for pair, picture, mask in zip(pairs, intensities(0), labels(0), strict=True):
        np.testing.assert_array_equal(grey(pair), between(picture, low, high))
        np.testing.assert_array_equal(open_both(pair)[1].masks[0], mask == 1)


def test_the_window_of_the_file_is_taken_and_the_users_before_it(tmp_path: Path) -> None:
    source = one(tmp_path, WindowCenter=[40, 600], WindowWidth=[400, 1500])
    np.testing.assert_array_equal(grey(read(source)[2]), between(intensities(0)[2], -160, 239))
    own = read(source, PartOptions(slices="all", window=(0.0, 100.0)))
    np.testing.assert_array_equal(grey(own[2]), between(intensities(0)[2], -50, 50))


@pytest.mark.parametrize("film", ["MONOCHROME2", "MONOCHROME1"])
def test_what_the_scanner_pads_with_is_black_and_does_not_count(film: str, tmp_path: Path) -> None:
    """GE scanners put -2000 around their round picture, which would take half of the range."""
    source = one(tmp_path, PixelPaddingValue=63, PixelPaddingRangeLimit=40, PhotometricInterpretation=film)
    seen = np.isin(intensities(0) + 1024, range(40, 64), invert=True)
    low, high = np.percentile(intensities(0)[seen].astype(float), [0.5, 99.5])
    ends = (low, high) if film == "MONOCHROME2" else (high, low)
    assert not seen.all()
    for pair, picture, there in zip(read(source)[:4], intensities(0), seen, strict=True):
        np.testing.assert_array_equal(grey(pair), np.where(there, between(picture, *ends), 0))


def test_numbers_that_run_against_the_positions_are_told_where_a_mask_does_not_say_where_it_lies(
    tmp_path: Path,
) -> None:
    source = one(tmp_path)
    assert not any("InstanceNumber" in note for note in discover(source).notes)
    for path in (source / "images/p1").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = str(9 - int(dataset.InstanceNumber))
        dataset.save_as(path)
    assert any("InstanceNumber runs the other way, so look" in note for note in discover(source).notes)


def test_windows_that_change_from_slice_to_slice_are_not_taken(tmp_path: Path) -> None:
    source = one(tmp_path)
    for number, path in enumerate(sorted((source / "images/p0").iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.WindowCenter, dataset.WindowWidth = 10 * number, 100
        save_dicom(path, dataset)
    low, high = np.percentile(intensities(0).astype(float), [0.5, 99.5])
    np.testing.assert_array_equal(grey(read(source)[1]), between(intensities(0)[1], low, high))
    notes = discover(source, ReadOptions(parts=ALL)).notes
    assert "DICOM windows that change from slice to slice are not taken; --window chooses one" in notes


def test_films_with_low_values_bright_are_turned_round(tmp_path: Path) -> None:
    source = one(tmp_path, PhotometricInterpretation="MONOCHROME1", WindowCenter=40, WindowWidth=400)
    np.testing.assert_array_equal(grey(read(source)[1]), between(intensities(0)[1], 239, -160))


def test_series_without_positions_go_by_their_numbers(tmp_path: Path) -> None:
    source = one(tmp_path, ImagePositionPatient=None, ImageOrientationPatient=None, WindowCenter=0, WindowWidth=3000)
    for pair, picture in zip(read(source)[:4], intensities(0), strict=True):
        np.testing.assert_array_equal(grey(pair), between(picture, -1500, 1499))


@pytest.mark.parametrize("order", ["LPS", "RAS", "SAR"])
def test_a_nifti_mask_lies_on_the_grid_of_its_series(order: str, tmp_path: Path) -> None:
    source = one(tmp_path)
    for number in range(3):
        (source / f"masks/p{number}.npy").unlink()
        path = write_nifti(source / f"masks/p{number}.nii.gz", labels(number), order, (0.7, 0.7, 2.5))
        place_at(path, source / f"images/p{number}")
    for pair, mask in zip(read(source)[:4], labels(0), strict=True):
        np.testing.assert_array_equal(open_both(pair)[1].masks[0], mask == 1)
    write_nifti(source / "masks/p0.nii.gz", labels(0), order, (0.7, 0.7, 2.5))
    assert "the mask lies elsewhere than p0" in refusal(source)


def place_at(path: Path, series: Path) -> None:
    """Moves a NIfTI volume to where the first slice of a series lies."""
    first = pydicom.dcmread(series / "003.dcm")
    image = nibabel.load(path)
    content, affine = np.asanyarray(image.dataobj), image.affine.copy()
    x, y, z = (float(value) for value in first.ImagePositionPatient)
    affine[:3, 3] += np.array([-x, -y, z]) - np.array([50.0, 40.0, -30.0])
    nibabel.save(nibabel.Nifti1Image(content, affine), path)


# ------------------------------------------------------------------------------------------------ files by themselves


def test_slices_with_a_picture_each_share_the_brightness_of_their_series(tmp_path: Path) -> None:
    source = one(tmp_path)
    for number in range(3):
        (source / f"masks/p{number}.npy").unlink()
        (source / f"masks/p{number}").mkdir()
        for place, mask in enumerate(labels(number)):
            name = f"{(place * 7 + 3) % 10:03}.png"
            (source / f"masks/p{number}" / name).write_bytes(encoded(mask * 255))
    pairs = read(source)
    assert len(pairs) == 12
    low, high = np.percentile(intensities(1).astype(float), [0.5, 99.5])
    chosen = next(pair for pair in pairs if pair.image.as_posix().endswith("p1/000.dcm"))  # the second slice
    np.testing.assert_array_equal(grey(chosen), between(intensities(1)[1], low, high))
    assert len(read(source, PartOptions())) == 6


def test_frames_of_one_file_are_slices(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for number in range(3):
        stored = (intensities(number) % 200).astype(np.uint8)
        more = {"NumberOfFrames": 4, "ImagePositionPatient": None, "RescaleSlope": None, "RescaleIntercept": None}
        save_dicom(tmp_path / f"images/p{number}.dcm", dicom_dataset(stored, f"p{number}", 0, **more))
        np.save(tmp_path / f"masks/p{number}.npy", labels(number))
    for pair, picture in zip(read(tmp_path)[:4], intensities(0) % 200, strict=True):
        np.testing.assert_array_equal(grey(pair), picture)


def test_what_frames_have_in_common_is_read_from_their_groups(tmp_path: Path) -> None:
    shared, values, window = Dataset(), Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept = 2, -1000
    window.WindowCenter, window.WindowWidth = 0, 2000
    shared.PixelValueTransformationSequence, shared.FrameVOILUTSequence = Items([values]), Items([window])
    (tmp_path / "masks").mkdir()
    stored = np.random.default_rng(0).integers(0, 1000, (4, *SIZE), dtype=np.uint16)
    for number in range(3):
        more = {"NumberOfFrames": 4, "RescaleSlope": None, "RescaleIntercept": None, "ImagePositionPatient": None}
        dataset = dicom_dataset(stored, f"p{number}", 0, SharedFunctionalGroupsSequence=Items([shared]), **more)
        save_dicom(tmp_path / f"images/p{number}.dcm", dataset)
        np.save(tmp_path / f"masks/p{number}.npy", labels(number))
    np.testing.assert_array_equal(grey(read(tmp_path)[2]), between(2.0 * stored[2] - 1000, -1000, 999))


def test_colours_are_kept(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    for number in range(3):
        dataset = dicom_dataset(colours[:, :, 0], f"p{number}", 0, RescaleSlope=None, RescaleIntercept=None)
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.PixelData = colours.tobytes()
        save_dicom(tmp_path / f"images/p{number}.dcm", dataset)
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / f"masks/p{number}.png").write_bytes(encoded(truth(number).astype(np.uint8)))
    np.testing.assert_array_equal(open_both(read(tmp_path)[0])[0].rgb, colours)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=["RLE", "JPEG 2000"])
def test_compressed_files_are_opened(syntax: str, tmp_path: Path) -> None:
    source = one(tmp_path, WindowCenter=0, WindowWidth=3000)
    path = source / "images/p0/000.dcm"
    dataset = pydicom.dcmread(path)
    if syntax == RLELossless:
        dataset.compress(syntax)
    else:
        compress_with_gdcm(path)
        dataset = pydicom.dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == syntax
    save_dicom(path, dataset)
    np.testing.assert_array_equal(grey(read(source)[1]), between(intensities(0)[1], -1500, 1499))


def compress_with_gdcm(path: Path) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def test_files_without_an_ending_are_known_by_their_content(tmp_path: Path) -> None:
    source = one(tmp_path)
    for path in (source / "images/p0").iterdir():
        path.rename(path.with_name(f"IM{path.stem}"))
    (source / "images/p0/README").write_text("notes")
    assert len(read(source)) == 12


# ------------------------------------------------------------------------------------------------------------ patients


def test_series_of_a_patient_stay_together_without_naming_the_patient(tmp_path: Path) -> None:
    source = one(tmp_path, PatientID="MUELLER-1970")
    listing, problems = list_pairs(source, ReadOptions())
    assert problems == []
    assert {pair.group for pair in listing.listed} == {patient_group("MUELLER-1970")}
    assert "MUELLER" not in repr(listing)
    (source / "list.csv").write_text(
        "image,label,split\n"
        + "".join(f"images/p{n},masks/p{n}.npy,{s}\n" for n, s in enumerate(("train", "val", "test")))
    )
    with pytest.raises(DataError, match=r"group patient-[0-9a-f]{16} is in two splits") as caught:
        discover(source / "list.csv")
    assert "MUELLER" not in str(caught.value)


def test_nothing_of_the_patient_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = one(tmp_path, PatientName="MUELLER^EVA", PatientBirthDate="19700101")
    with pytest.raises(SystemExit):
        cli.main(["data", "import", str(source), "--domain", "d", "--out", str(tmp_path / "made")])
    said = capsys.readouterr()
    stored = [path for path in (tmp_path / "made").rglob("*") if path.is_file()]
    assert stored
    for path in stored:
        for word in (b"MUELLER", b"SECRET", b"19700101"):
            assert word not in path.read_bytes()
            assert word.decode() not in said.out + said.err


def test_nobody_warns_of_odd_values_with_the_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Warnings are errors here, and pydicom's name the value."""
    with pydicom.config.disable_value_validation():
        source = one(tmp_path, PatientID="MUELLER" * 12, StudyInstanceUID="MUELLER")
    caplog.clear()
    listing, problems = list_pairs(source, ReadOptions())
    assert problems == []
    for pair in listing.listed:
        open_both(pair)
    assert "MUELLER" not in caplog.text


def test_a_group_that_the_user_chooses_comes_first(tmp_path: Path) -> None:
    found = discover(one(tmp_path), splitting=Splitting(group=r"images/(p\d)"))
    assert {pair.group for pair in found.pairs} == {"p0", "p1", "p2"}


# ------------------------------------------------------------------------------------------------------------- refused


def test_two_series_or_two_phases_in_a_folder_are_refused(tmp_path: Path) -> None:
    source = one(tmp_path)
    save_dicom(source / "images/p0/other.dcm", dicom_dataset(np.zeros(SIZE, np.uint16), "p1", 0))
    save_dicom(source / "images/p1/phase.dcm", dicom_dataset(np.zeros(SIZE, np.uint16), "p1", 2))
    said = refusal(source)
    assert "images/p0: holds 2 series; give each a folder of its own" in said
    assert "images/p1: several slices lie at the same position" in said


def test_files_without_pixels_are_refused(tmp_path: Path) -> None:
    source = one(tmp_path)
    save_dicom(
        source / "images/p0/000.dcm", dicom_dataset(np.zeros(SIZE, np.uint16), "p0", 1, Rows=None, PixelData=None)
    )
    said = refusal(source)
    assert "000.dcm: this DICOM file has no pixels; remove it" in said
    save_dicom(source / "images/p0/000.dcm", dicom_dataset(intensities(0)[0], "p0", 1, PixelData=None))
    with pytest.raises(Unusable, match=r"000\.dcm: this DICOM file has no pixels"):
        open_all(source)


def test_other_files_are_refused(tmp_path: Path) -> None:
    source = one(tmp_path)
    contours = dicom_dataset(np.zeros(SIZE, np.uint16), "p0", 0, PixelData=None)
    contours.SOPClassUID = contours.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    save_dicom(source / "images/p0/rs.dcm", contours)
    (source / "images/p1/000.dcm").write_bytes(b"<html>404</html>")
    said = refusal(source)
    assert "rs.dcm: contours (RTSTRUCT) are no pictures, but a mask for a folder of slices; put it with the" in said
    assert "000.dcm: the image is no DICOM file; export it again" in said


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_file_cut_short_is_refused(share: float, tmp_path: Path) -> None:
    source = one(tmp_path)
    content = (source / "images/p0/000.dcm").read_bytes()
    (source / "images/p0/000.dcm").write_bytes(content[: int(len(content) * share)])
    with pytest.raises((DataError, Unusable), match=r"000\.dcm: .*(damaged|no pixels|no DICOM).*; "):
        open_all(source)


def test_masks_of_another_amount_or_size_are_refused(tmp_path: Path) -> None:
    source = one(tmp_path)
    np.save(source / "masks/p0.npy", labels(0)[:3])
    np.save(source / "masks/p1.npy", labels(0)[:, :20])
    said = refusal(source)
    assert "p0.npy: the mask is 32 x 24 x 3 px, its image p0 32 x 24 x 4" in said
    assert "p1.npy: the mask is 32 x 20 x 4 px" in said


def test_a_mask_in_colours_is_refused(tmp_path: Path) -> None:
    source = one(tmp_path)
    (source / "masks/p0.npy").unlink()
    colours = dicom_dataset(np.zeros(SIZE, np.uint8), "mask", 0, SamplesPerPixel=3, PlanarConfiguration=0)
    colours.PhotometricInterpretation, colours.PixelData = "RGB", bytes(3 * SIZE[0] * SIZE[1])
    for place in range(4):
        colours.InstanceNumber, colours.ImagePositionPatient = str(place), [-50, -40, 2.5 * place]
        save_dicom(source / f"masks/p0/{place}.dcm", colours)
    (source / "list.csv").write_text("image,label\nimages/p0,masks/p0\n")
    assert "0.dcm: the mask has colours; save one value for each pixel" in refusal(source / "list.csv")


def test_a_folder_of_other_things_is_still_no_picture(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "m.png")
    (tmp_path / "list.csv").write_text("image,label\n" + "images,m.png\n")
    pair = list_pairs(tmp_path / "list.csv", ReadOptions())[0].listed[0]
    with pytest.raises(Unusable, match="is a folder, not a file"):
        open_both(pair)
