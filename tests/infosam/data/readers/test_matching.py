from __future__ import annotations

import pytest

from infosam.data.readers.matching import Rule, find_rule, pair_names

NUMBERS = [f"{number:03}" for number in range(1, 31)]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}", "{}"),
        ("{}", "{}_mask"),
        ("{}", "mask_{}"),
        ("{}", "{}mask"),
        ("{}_sat", "{}_mask"),
        ("img_{}", "mask_{}"),
        ("photo{}", "photo{}-seg"),
        ("ISIC_{}", "ISIC_{}_segmentation"),
        ("Image_{}L", "Image_{}L_1stHO"),
        ("{}_training", "{}_manual1"),
        ("aachen_{}_leftImg8bit", "aachen_{}_gtFine_labelIds"),
        ("BILD {}", "{}"),
        ("süß {}", "süß {} maske"),
    ],
)
def test_names_with_one_rule_are_all_paired(image: str, mask: str) -> None:
    images = [image.format(number) for number in NUMBERS]
    masks = [mask.format(number) for number in NUMBERS]
    rule = find_rule(images, masks)
    assert pair_names(rule, images, masks) == {left: [right] for left, right in zip(images, masks, strict=True)}
    assert rule.plain is (image == mask)


def test_the_rule_can_be_read() -> None:
    rule = find_rule(["104_sat", "105_sat", "106_sat"], ["104_mask", "105_mask", "106_mask"])
    assert rule.describe() == "image NAME_sat.* belongs to mask NAME_mask.*"


def test_several_numbered_masks_of_one_image() -> None:
    images = ["cat 7", "dog 12", "cow 9"]
    masks = ["cat 7_0", "cat 7_1", "dog 12_0", "cow 9_0", "cow 9_1", "cow 9_2"]
    rule = find_rule(images, masks)
    assert rule.numbered
    assert pair_names(rule, images, masks)["cow 9"] == ["cow 9_0", "cow 9_1", "cow 9_2"]


def test_a_number_is_never_taken_for_a_part_of_another() -> None:
    images, masks = ["1", "11", "111"], ["1_mask", "11_mask", "111_mask"]
    assert pair_names(find_rule(images, masks), images, masks) == {
        "1": ["1_mask"],
        "11": ["11_mask"],
        "111": ["111_mask"],
    }


def test_pictures_of_one_series_are_not_paired_with_their_neighbours() -> None:
    images, masks = [f"s1_{n}" for n in range(5)], [f"s2_{n}" for n in range(10, 15)]
    assert not pair_names(find_rule(images, masks), images, masks)


def test_equal_names_win_over_a_rule_that_fits_few() -> None:
    images = [*NUMBERS, "999"]
    assert find_rule(images, [*NUMBERS, "999_mask"]) == Rule()


def test_folders_must_agree() -> None:
    images, masks = ["a/1", "b/1"], ["a/1_mask", "b/1_mask"]
    assert pair_names(find_rule(images, masks), images, masks) == {"a/1": ["a/1_mask"], "b/1": ["b/1_mask"]}


def test_nothing_to_match_is_no_trouble() -> None:
    assert find_rule([], []).plain
    assert find_rule(["a"], []).plain
