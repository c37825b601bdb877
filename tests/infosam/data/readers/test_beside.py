from __future__ import annotations

from pathlib import Path

from names import Read, touch


def test_folders_of_splits_are_kept_and_one_without_masks_is_told(tmp_path: Path) -> None:
    """DeepGlobe: the organisers kept the masks of valid."""
    touch(tmp_path, "train/#_sat.jpg", "train/#_mask.png", "valid/1#_sat.jpg")
    read = Read(tmp_path)
    assert read.masks["train/1_sat.jpg"] == ["train/1_mask.png"]
    assert set(read.splits.values()) == {"train"}
    assert "not read: valid/" in read.notes


def test_a_drawing_is_told_from_a_photograph_by_its_ending(tmp_path: Path) -> None:
    touch(tmp_path, "#.jpg", "#.png")
    read = Read(tmp_path)
    assert read.masks["1.jpg"] == ["1.png"]
    assert "told from masks by the ending" in read.notes


def test_folders_that_only_look_like_splits_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "traincrop/#.jpg", "traincrop/#.png", "valcrop/1#.jpg", "valcrop/1#.png")
    assert "their names speak of splits: traincrop, valcrop" in Read(tmp_path).notes
    read = Read(tmp_path, "SPLITcrop/NAME.jpg", "SPLITcrop/NAME.png")
    assert set(read.splits.values()) == {"train", "val"}


def test_further_masks_of_an_image_are_its_own(tmp_path: Path) -> None:
    """BUSI: most images have one mask, some a second."""
    touch(tmp_path, "benign/benign (#).png", "benign/benign (#)_mask.png", "benign/benign (2)_mask_1.png")
    read = Read(tmp_path)
    assert not read.problems
    assert read.masks["benign/benign (2).png"] == ["benign/benign (2)_mask.png", "benign/benign (2)_mask_1.png"]
    assert read.masks["benign/benign (1).png"] == ["benign/benign (1)_mask.png"]
    assert "image NAME.* belongs to mask NAME_mask.*" in read.notes
