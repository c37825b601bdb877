from __future__ import annotations

from pathlib import Path

import pytest
from names import Read, touch

from infosam.errors import UserError


def test_a_folder_per_image_with_several_masks(tmp_path: Path) -> None:
    touch(tmp_path, "a#/images/x.png", "a#/masks/m0.png", "a#/masks/m1.png")
    read = Read(tmp_path, "NAME/images/*.png", "NAME/masks/*.png")
    assert read.masks["a1/images/x.png"] == ["a1/masks/m0.png", "a1/masks/m1.png"]
    assert len({pair.row for pair in read.listed}) == 8


def test_equal_names_in_two_splits_stay_apart(tmp_path: Path) -> None:
    touch(tmp_path, "train/sat/#.tif", "train/map/#.tif", "VALID/sat/#.tif", "VALID/map/#.tif")
    read = Read(tmp_path, "SPLIT/sat/NAME.tif", "SPLIT/map/NAME.tif")
    assert read.masks["VALID/sat/1.tif"] == ["VALID/map/1.tif"]
    assert read.splits["VALID/sat/1.tif"] == "val"


def test_a_split_in_one_of_the_patterns_is_enough(tmp_path: Path) -> None:
    touch(tmp_path, "Images/Test/#.JPG", "GT/#.png", "GT/99.png")
    read = Read(tmp_path, "Images/SPLIT/NAME.jpg", "GT/NAME.png")
    assert set(read.splits.values()) == {"test"}
    assert "1 masks 'GT/NAME.png' left out, for they have no image: such as GT/99.png" in read.notes


def test_what_is_read_is_below_the_source_and_not_hidden(tmp_path: Path) -> None:
    touch(tmp_path, "a/#.jpg", "a/.old/9.jpg", "m/#.png", "m/.old/9.png")
    assert len(Read(tmp_path, "a/NAME.jpg", "m/NAME.png").listed) == 4


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        ("images/NAME.jpg", None, "--masks is missing"),
        (None, "images/NAME.jpg", "--images is missing"),
        ("images/*.jpg", "masks/NAME.png", "NAME"),
        ("../images/NAME.jpg", "masks/NAME.png", "below SRC"),
        ("/images/NAME.jpg", "masks/NAME.png", "below SRC"),
        ("", "masks/NAME.png", "below SRC"),
        ("imagse/NAME.jpg", "masks/NAME.png", "imagse is no folder; there are images/, masks/"),
        ("images/NAME.bmp", "masks/NAME.png", "fits no file (images/0.jpg"),
        ("*/NAME.*", "masks/NAME.png", "are both NAME '0'"),
    ],
)
def test_patterns_that_fit_nothing_say_why(
    images: str | None, masks: str | None, expected: str, tmp_path: Path
) -> None:
    touch(tmp_path, "images/#.jpg", "masks/#.png")
    try:
        said = " ".join(Read(tmp_path, images, masks).problems)
    except UserError as error:
        said = str(error)
    assert expected in said
