from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from small_sources import SIZE, encoded, pixels, truth
from small_volumes import LPS, intensities, labels, nifti, write_nifti

from infosam.data.formats.nifti import open_volume, plane_of
from infosam.data.manifest import discover, list_pairs
from infosam.data.masks import Unusable
from infosam.data.pairs import MaskChoice, Pair, PartOptions, ReadOptions
from infosam.data.pixels import open_both
from infosam.errors import DataError

ALL = PartOptions(slices="all")
# Right-handed and left-handed, and with slices along each stored axis.
ORDERS = ["LPS", "RAS", "LAS", "RPI", "SAR", "PIR", "ILA", "ASL"]


def read(source: Path, parts: PartOptions = ALL) -> list[Pair]:
    return sorted(discover(source, ReadOptions(parts=parts)).pairs, key=lambda pair: pair.row)


def grey(pair: Pair) -> np.ndarray:
    return open_both(pair)[0].rgb[:, :, 0]


def stretched(volume: np.ndarray) -> np.ndarray:
    low, high = np.percentile(volume.astype(float), [0.5, 99.5])
    return np.rint(np.clip((volume - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def one(folder: Path, image: str = "LPS", mask: str = "LPS", step: tuple[float, ...] = (1, 1, 3)) -> Path:
    for number in range(3):
        write_nifti(folder / f"images/v{number}.nii.gz", intensities(number), image, step)
        write_nifti(folder / f"masks/v{number}.nii.gz", labels(number), mask, step)
    return folder


@pytest.mark.parametrize("order", ORDERS)
def test_however_voxels_are_stored_slices_are_seen_alike(order: str, tmp_path: Path) -> None:
    pairs = read(one(tmp_path, image=order, mask=order))
    assert [pair.image.name for pair in pairs[:4]] == [f"v0_axial_{number}.png" for number in range(4)]
    for pair, picture, mask in zip(pairs[:4], stretched(intensities(0)), labels(0), strict=True):
        np.testing.assert_array_equal(grey(pair), picture)
        np.testing.assert_array_equal(open_both(pair)[1].masks[0], mask == 1)


@pytest.mark.parametrize("order", ORDERS)
def test_a_mask_is_turned_as_its_image_is(order: str, tmp_path: Path) -> None:
    for pair, mask in zip(read(one(tmp_path, image="RAS", mask=order))[:4], labels(0), strict=True):
        np.testing.assert_array_equal(open_both(pair)[1].masks[0], mask == 1)


def test_an_axial_slice_has_the_front_on_top_and_the_right_of_the_patient_on_the_left(tmp_path: Path) -> None:
    """Written by hand, so that not all of this depends on one helper."""
    for number in range(3):
        voxels = np.zeros((5, 6, 7), np.uint8)  # to the right, to the front, to the top
        voxels[4, 5, 1] = 200  # right, front, low
        image = nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 1.0, 1.0]))
        for folder, content in (("images", image), ("masks", image)):
            (tmp_path / folder).mkdir(exist_ok=True)
            nibabel.save(content, tmp_path / folder / f"{number}.nii")
    expected = {"axial": ((6, 5), (0, 0), 1), "coronal": ((7, 5), (5, 0), 0), "sagittal": ((7, 6), (5, 0), 0)}
    for axis, (size, place, number) in expected.items():
        pair = read(tmp_path, PartOptions(axis=axis))[0]  # type: ignore[arg-type]
        assert grey(pair).shape == size
        assert np.argwhere(grey(pair)).tolist() == [list(place)]
        assert pair.image.name == f"0_{axis}_{number}.png"


@pytest.mark.parametrize(
    ("step", "plane"),
    [
        ((1, 1, 1), "axial"),
        ((1, 1, 5), "axial"),
        ((1, 5, 1), "coronal"),
        ((5, 1, 1), "sagittal"),
        ((1, 1.4, 1), "axial"),
    ],
)
def test_the_plane_is_the_one_slices_were_taken_in(step: tuple[float, ...], plane: str, tmp_path: Path) -> None:
    assert plane_of(LPS @ np.diag([*step, 1.0])) == plane
    found = discover(one(tmp_path, image="SAR", mask="RAS", step=step))
    assert f"volumes cut into slices: 3 {plane}; --axis chooses" in found.notes


def test_a_volume_of_one_picture_is_seen_from_the_side_it_was_taken(tmp_path: Path) -> None:
    assert plane_of(np.eye(4), (1, 30, 40)) == "sagittal"
    assert plane_of(LPS, (30, 1, 40)) == "coronal"
    for number in range(3):  # of two axes, as echocardiograms are stored
        for folder, picture in (("images", intensities(number)[1]), ("masks", labels(number)[1])):
            (tmp_path / folder).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(picture.T, LPS), tmp_path / f"{folder}/v{number}.nii.gz")
    pair = read(tmp_path)[0]
    assert pair.image.name == "v0_axial_0.png"
    np.testing.assert_array_equal(grey(pair), stretched(intensities(0)[1]))
    np.testing.assert_array_equal(open_both(pair)[1].masks[0], labels(0)[1] == 1)


def test_a_window_and_the_scale_of_the_file_are_followed(tmp_path: Path) -> None:
    source = one(tmp_path)
    stored = nibabel.load(source / "images/v0.nii.gz")
    scaled = nibabel.Nifti1Image(np.asanyarray(stored.dataobj), stored.affine)
    scaled.header.set_slope_inter(0.5, 10.0)
    nibabel.save(scaled, source / "images/v0.nii.gz")
    real = nibabel.load(source / "images/v0.nii.gz").get_fdata()
    low, high = -160.0, 240.0
    expected = np.rint(np.clip((real - low) / (high - low), 0, 1) * 255)
    picture = grey(read(source, PartOptions(slices="all", window=(40.0, 400.0)))[2])
    np.testing.assert_array_equal(picture, np.transpose(expected, (2, 1, 0))[2])


def test_8_bit_volumes_keep_their_values(tmp_path: Path) -> None:
    source = one(tmp_path)
    values = (intensities(0) % 100 + 20).astype(np.uint8)
    write_nifti(source / "images/v0.nii.gz", values)
    np.testing.assert_array_equal(grey(read(source)[3]), values[3])


def test_volumes_along_a_fourth_axis_are_bands(tmp_path: Path) -> None:
    source = one(tmp_path)
    parts = [nibabel.load(source / f"images/v{number}.nii.gz") for number in range(3)]
    several = nibabel.Nifti1Image(np.stack([np.asanyarray(part.dataobj) for part in parts], axis=3), parts[0].affine)
    for number in range(3):
        nibabel.save(several, source / f"images/v{number}.nii.gz")
    np.testing.assert_array_equal(grey(read(source)[1]), stretched(intensities(0))[1])
    assert any(note.startswith("shown: band 1 of 3") for note in discover(source).notes)
    np.testing.assert_array_equal(
        grey(read(source, PartOptions(slices="all", bands=(3,)))[1]), stretched(intensities(2))[1]
    )
    rgb = open_both(read(source, PartOptions(slices="all", bands=(3, 1, 2)))[1])[0].rgb
    np.testing.assert_array_equal(rgb, np.dstack([stretched(intensities(number))[1] for number in (2, 0, 1)]))


def test_a_list_of_volumes_keeps_its_own_splits_and_groups(tmp_path: Path) -> None:
    source = nifti(tmp_path)
    rows = [
        f"images/v{n}.nii.gz,masks/v{n}_seg.nii.gz,{split},g{n}" for n, split in enumerate(("train", "val", "test"))
    ]
    (source / "list.csv").write_text("\n".join(["image,label,split,group", *rows]) + "\n")
    pairs = discover(source / "list.csv").pairs
    assert [(pair.split, pair.group) for pair in pairs[::2]] == [("train", "g0"), ("val", "g1"), ("test", "g2")]
    assert pairs[0].row == "list.csv:2, axial 1"


def test_a_class_of_a_volume_of_labels(tmp_path: Path) -> None:
    source = one(tmp_path)
    for number in range(3):
        write_nifti(
            source / f"masks/v{number}.nii.gz",
            (labels(number) * np.array([1, 1, 2, 2])[:, None, None]).astype(np.int16),
        )
    options = ReadOptions(choice=MaskChoice(classes=("2",)))
    assert {pair.image.stem[3:] for pair in discover(source, options).pairs} == {"axial_2"}
    with pytest.raises(DataError, match="3 different values"):
        discover(source)
    with pytest.raises(DataError, match=r"no slice or tile has an object, of 12 looked at; .*--class"):
        discover(source, ReadOptions(choice=MaskChoice(classes=("7",))))


# ------------------------------------------------------------------------------------------------------------ refused


def refusal(source: Path, parts: PartOptions = ALL) -> str:
    with pytest.raises(DataError) as caught:
        read(source, parts)
    return str(caught.value)


def test_a_mask_of_another_size_or_place_is_refused(tmp_path: Path) -> None:
    source = one(tmp_path)
    write_nifti(source / "masks/v0.nii.gz", labels(0)[:3])
    moved = nibabel.load(source / "masks/v1.nii.gz")
    moved.affine[0, 3] += 2.0
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(moved.dataobj), moved.affine), source / "masks/v1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(moved.dataobj), np.eye(4)), source / "masks/v2.nii.gz")
    said = refusal(source)
    assert "the mask is 32 x 24 x 3 px, its image v0.nii.gz 32 x 24 x 4; export the mask" in said
    for number in (1, 2):
        assert f"the mask lies elsewhere than v{number}.nii.gz; save it on the grid of the image" in said


def test_a_mask_that_is_a_picture_is_no_volume(tmp_path: Path) -> None:
    source = one(tmp_path)
    (source / "masks/v0.nii.gz").unlink()
    (source / "masks/v0.png").write_bytes(encoded(truth(0).astype(np.uint8)))
    assert "v0.png: the mask is 32 x 24 x 1 px, its image v0.nii.gz 32 x 24 x 4" in refusal(source)


@pytest.mark.parametrize("ending", ["npy", "png"])
def test_a_mask_that_does_not_say_how_it_lies_is_refused_even_if_it_fits(ending: str, tmp_path: Path) -> None:
    source = one(tmp_path)
    (source / "masks/v0.nii.gz").unlink()
    if ending == "npy":
        np.save(source / "masks/v0.npy", labels(0))
    else:
        write_nifti(source / "images/v0.nii.gz", intensities(0)[:1])
        (source / "masks/v0.png").write_bytes(encoded(truth(0).astype(np.uint8)))
    assert f"v0.{ending}: a mask without coordinates does not say how it lies in a NIfTI" in refusal(source)


def test_a_mask_with_nan_is_named(tmp_path: Path) -> None:
    source = one(tmp_path)
    drawn = labels(0).astype(np.float32)
    drawn[0, 0, :5] = np.nan
    write_nifti(source / "masks/v0.nii.gz", drawn)
    assert "the mask has pixels that are no numbers (NaN); save them as 0" in refusal(source)


@pytest.mark.parametrize("step", [0.0, 1e-20, np.nan])  # the second: two axes run almost the same way
def test_an_affine_without_a_direction_is_refused(step: float, tmp_path: Path) -> None:
    source = one(tmp_path)
    image = nibabel.load(source / "images/v0.nii.gz")
    image.header["srow_x"] = (-1, 1, 0, 0)
    image.header["srow_y"] = (0, step, 0, 0)
    nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), source / "images/v0.nii.gz")
    assert "v0.nii.gz: its affine says nothing about directions; export it again" in refusal(source)


def test_a_volume_is_no_mask_of_a_picture(tmp_path: Path) -> None:
    source = one(tmp_path)
    (source / "images/v0.nii.gz").unlink()
    (source / "images/v0.png").write_bytes(encoded(pixels(0)))
    assert "the mask is 32 x 24 x 4 px, its image v0.png is one picture" in refusal(source)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_files_cut_short_and_other_files_are_refused(kind: str, tmp_path: Path) -> None:
    source = one(tmp_path)
    content = (source / kind / "v0.nii.gz").read_bytes()
    (source / kind / "v0.nii.gz").write_bytes(content[: len(content) // 2])
    (source / kind / "v1.nii.gz").write_bytes(b"<html>404</html>")
    (source / kind / "v2.nii.gz").write_bytes(gzip.compress(b"\0" * 1000))
    said = refusal(source)
    for number in (1, 2) if kind == "images" else (0, 1, 2):
        assert f"v{number}.nii.gz: the {kind[:-1]} is damaged or cut short" in said
    assert "copy or export it again" in said


def test_a_volume_cut_short_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    source = one(tmp_path)
    content = (source / "images/v0.nii.gz").read_bytes()
    (source / "images/v0.nii.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(Exception, match=r"v0\.nii\.gz: the image is damaged or cut short .*; copy or export it again"):
        open_both(read(source)[0])


def test_shapes_that_are_no_volume_are_refused(tmp_path: Path) -> None:
    source = one(tmp_path)
    affine = nibabel.load(source / "images/v0.nii.gz").affine
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2, 2, 2), np.int16), affine), source / "images/v0.nii.gz")
    colours = np.zeros((4, 4, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, affine), source / "images/v1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((*SIZE[::-1], 4, 3), np.int16), affine), source / "masks/v2.nii.gz")
    said = refusal(source)
    assert "the image has the shape 4 x 4 x 2 x 2 x 2; expected columns x rows x slices" in said
    assert "v1.nii.gz: holds" in said
    assert "the mask has the shape 32 x 24 x 4 x 3" in said


def test_blank_volumes_are_left_out_and_nothing_but_blank_is_refused(tmp_path: Path) -> None:
    source = one(tmp_path)
    for number in range(3):
        write_nifti(source / f"masks/v{number}.nii.gz", labels(number) * (number > 1))
    listing, problems = list_pairs(source, ReadOptions())
    assert [pair.row for pair in listing.listed] == ["v2.nii.gz, axial 1", "v2.nii.gz, axial 2"]
    assert problems == []
    write_nifti(source / "masks/v2.nii.gz", labels(0) * 0)
    assert "no slice or tile has an object, of 12 looked at" in refusal(source, PartOptions())


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    for number in range(3):
        for folder, content in (("images", pixels(number)), ("masks", truth(number).astype(np.uint8))):
            (tmp_path / folder).mkdir(exist_ok=True)
            np.save(tmp_path / folder / f"{number}.npy", content)
    with pytest.raises(ValueError, match="--axis has no effect on any file of the source; leave it out"):
        read(tmp_path, PartOptions(axis="axial"))


def test_volumes_are_opened_once_and_not_for_every_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = read(one(tmp_path))
    opened: list[Path] = []
    load = nibabel.load
    monkeypatch.setattr(nibabel, "load", lambda path: opened.append(path) or load(path))
    for pair in pairs:
        open_both(pair)
    assert len(opened) == len(set(opened))


def test_an_axis_without_a_direction_is_refused(tmp_path: Path) -> None:
    """Two axes that are almost one, though the affine can be inverted."""
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), None)
    affine = np.eye(4)
    affine[:2, 1] = 1.0, 1e-20
    image.header.set_sform(affine, code=2)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(Unusable, match="says nothing about directions"):
        open_volume(tmp_path / "a.nii", "image", PartOptions())
