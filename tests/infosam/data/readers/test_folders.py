from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from names import Read, touch

from infosam.data.pairs import ReadOptions
from infosam.data.readers.pairing import Sides, matched
from infosam.data.readers.table import choose_reader
from infosam.errors import ConfigError, DataError


def message_of(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        Read(source)
    return str(caught.value)


def test_a_field_of_view_is_not_taken_for_the_truth(tmp_path: Path) -> None:
    """DRIVE: what lies in mask/ is where the camera saw anything."""
    touch(tmp_path, "training/images/2#_training.tif", "training/1st_manual/2#_manual1.gif")
    touch(tmp_path, "training/mask/2#_training_mask.gif")
    message = message_of(tmp_path)
    assert "which folder holds the masks, 1st_manual/ or mask/?" in message
    words = "--images 'SPLIT/images/NAME_*.tif' --masks 'SPLIT/1st_manual/NAME_manual1.gif'"
    assert words in message
    read = Read(tmp_path, *(word.strip("'") for word in words.split()[1::2]))
    assert read.masks["training/images/21_training.tif"] == ["training/1st_manual/21_manual1.gif"]
    assert set(read.splits.values()) == {"train"}


@pytest.mark.parametrize("others", ["labels-ah/#.ah.ppm labels-vk/#.vk.ppm", "manual1/#.tif mask/#_mask.tif"])
def test_two_folders_of_masks_are_a_question(others: str, tmp_path: Path) -> None:
    touch(tmp_path, "images/#.ppm", *others.split())
    message = message_of(tmp_path)
    assert all(name.split("/")[0] + "/" in message for name in others.split())


def test_folders_of_pictures_that_are_neither_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "Imgs/#.jpg", "GT/#.png", "Edge/#.png")
    read = Read(tmp_path)
    assert read.masks["Imgs/1.jpg"] == ["GT/1.png"]
    assert "not read, though there are pictures in it: Edge/" in read.notes


def test_a_test_folder_that_is_not_understood_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/images/#.png", "train/masks/#.png", "test/Kvasir/images/#.png", "test/CVC/images/#.png")
    assert "not read, though there are pictures in it: test/" in Read(tmp_path).notes


def test_two_ways_of_keeping_splits_at_once_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/#.png", "masks/#.png", "train/images/#.png", "train/masks/#.png")
    assert "which are meant?" in message_of(tmp_path)


def test_a_folder_of_something_else_is_no_folder_of_masks(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/#.jpg", "SegmentationClass/#.png", "Annotations/#.xml")
    assert Read(tmp_path).masks["JPEGImages/1.jpg"] == ["SegmentationClass/1.png"]
    touch(tmp_path / "yolo", "images/#.jpg", "labels/#.txt")
    assert "no picture or volume in it, but 0.txt" in Read(tmp_path / "yolo").problems[0]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("Original/#.tif", "Ground Truth/#.tif"),
        ("train_images/#.png", "train_masks/#.png"),
        ("train/#.tiff", "train_labels/#.tif"),
        ("DUTS-TR-Image/#.jpg", "DUTS-TR-Mask/#.png"),
        ("ISIC2018_Task1-2_Training_Input/#.jpg", "ISIC2018_Task1_Training_GroundTruth/#_segmentation.png"),
        ("images/#.jpg", "annotations/trimaps/#.png"),
        ("images/Train/#.jpg", "masks/train/#.png"),
        ("Images/Train/#.jpg", "GT/#.png"),
        ("leftImg8bit/train/aachen/#_leftImg8bit.png", "gtFine/train/aachen/#_gtFine_labelIds.png"),
    ],
)
def test_names_of_public_sets_are_understood(images: str, masks: str, tmp_path: Path) -> None:
    touch(tmp_path, images, masks)
    read = Read(tmp_path)
    assert not read.problems
    assert read.masks[images.replace("#", "2")] == [masks.replace("#", "2")]
    given = any(word in images.lower() for word in ("train", "-tr-"))
    assert set(read.splits.values()) == {"train" if given else None}


def test_splits_beside_one_folder_of_masks_are_kept(tmp_path: Path) -> None:
    touch(tmp_path, "Images/Train/a#.jpg", "Images/Test/b#.jpg", "Images/other/x.jpg", "GT/a#.png", "GT/b#.png")
    read = Read(tmp_path)
    assert not read.problems
    assert read.splits["Images/Train/a1.jpg"] == "train"
    assert read.splits["Images/Test/b1.jpg"] == "test"


def test_what_systems_and_tools_leave_is_no_picture(tmp_path: Path) -> None:
    for side in ("images", "masks"):
        touch(tmp_path / side, "#.png", "._0.png", ".DS_Store", "Thumbs.db", ".ipynb_checkpoints/0-checkpoint.png")
        touch(tmp_path / side, "__MACOSX/0.png", "@eaDir/0.png/thumb.png")
    read = Read(tmp_path)
    assert sorted(read.masks) == [f"images/{number}.png" for number in range(4)]
    assert not read.notes


def test_several_kinds_of_masks_are_one_question(tmp_path: Path) -> None:
    """CHASE_DB1: two observers."""
    touch(tmp_path, "images/Image_0#L.jpg", "labels/Image_0#L_1stHO.png", "labels/Image_0#L_2ndHO.png")
    (problem,) = Read(tmp_path).problems
    assert "NAME_1stHO.* (4), NAME_2ndHO.* (4)" in problem
    assert "--images 'images/NAME.jpg' --masks 'labels/NAME_1stHO.png'" in problem


def test_images_without_masks_may_be_left_out_by_what_the_message_says(tmp_path: Path) -> None:
    touch(tmp_path, "images/ISIC_#.jpg", "images/ISIC_#_superpixels.png", "masks/ISIC_#_segmentation.png")
    problem = Read(tmp_path).problems[0]
    assert "4 images have no mask" in problem
    read = Read(tmp_path, *(word.strip("'") for word in problem.split("say ")[1].split()[1::2]))
    assert len(read.masks) == 4
    assert "4 images 'images/NAME.*' left out" in read.notes


def test_a_list_beside_the_folders_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "images/#.png", "masks/#.png", "metadata.csv")
    assert "not read: metadata.csv" in Read(tmp_path).notes


def test_a_data_set_further_down_is_proposed(tmp_path: Path) -> None:
    touch(tmp_path, "set/VOC2012/JPEGImages/#.jpg", "set/VOC2012/SegmentationClass/#.png")
    with pytest.raises(DataError, match=r"did you mean .*set/VOC2012"):
        choose_reader(tmp_path)


def test_accents_in_one_letter_or_two_are_the_same(tmp_path: Path) -> None:
    for side, form in (("images", "NFD"), ("masks", "NFC")):
        touch(tmp_path / side, *(unicodedata.normalize(form, f"{word}.png") for word in ("école", "Äpfel", "ñandú")))
    read = Read(tmp_path)
    assert len(read.masks) == 3
    assert not read.problems
    assert not read.notes


def test_images_in_a_format_that_is_not_read_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/0.HEIC", "images/1.jpg", "masks/0.png", "masks/1.png")
    (problem,) = Read(tmp_path).problems
    assert "0.HEIC is there, but no picture that is read here" in problem
    touch(tmp_path / "all", "images/#.HEIC", "masks/#.png")
    (problem,) = Read(tmp_path / "all").problems
    assert "images: no picture or volume in it, but 0.HEIC, 1.HEIC, 2.HEIC" in problem


def test_many_names_without_a_partner_are_listed_at_once(tmp_path: Path) -> None:
    """Each compared with each, they took hours."""
    pictures = {f"DSC{number * 7:06}": [tmp_path / f"{number}.jpg"] for number in range(20_000)}
    drawn = {f"drawn by hand {number * 3:06}": [tmp_path / f"{number}.png"] for number in range(20_000)}
    problems: list[str] = []
    matched(Sides(tmp_path, tmp_path, tmp_path), pictures, drawn, None, problems)
    assert len(problems) == 40_000


def test_shifted_numbers_are_suspected(tmp_path: Path) -> None:
    """Images from 1, masks from 0: removing what is left over would leave wrong pairs only."""
    touch(tmp_path, *(f"images/img_{number}.jpg" for number in range(1, 10)), "masks/mask_#.png", numbers=9)
    assert "if the numbers in the names are shifted, all pairs are wrong" in Read(tmp_path).problems[0]


def test_many_data_sets_in_a_folder_are_not_all_proposed(tmp_path: Path) -> None:
    touch(tmp_path, "a#/images/x.png", "a#/images/z.png", "a#/masks/x.png", "a#/masks/z.png", numbers=5)
    with pytest.raises(DataError, match=r"5 folders in it, such as .*a0, are data sets of their own; say where"):
        choose_reader(tmp_path)


def test_packed_pictures_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/im#.ppm.gz", "labels/im#.ah.ppm.gz")
    assert "images: no picture or volume in it, but im0.ppm.gz" in Read(tmp_path).problems[0]


def test_columns_of_a_source_without_any_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/#.png", "masks/#.png")
    for options in (ReadOptions(mask_column="gt"), ReadOptions(mask_column="gt", images="a/NAME", masks="b/NAME")):
        with pytest.raises(ConfigError, match="--mask-column 'gt': only lists"):
            choose_reader(tmp_path, options)
