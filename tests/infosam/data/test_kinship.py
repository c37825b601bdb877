from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_sources import encoded, pixels, truth

from infosam.data.card import Split
from infosam.data.kinship import kin_apart
from infosam.data.manifest import Splitting, discover
from infosam.data.pairs import Listed


def listed(names: Sequence[str], splits: Sequence[Split | None]) -> list[Listed]:
    return [
        Listed(image_name=f"/data/{name}", mask_name=f"/data/m/{name}", split=split, row=name)
        for name, split in zip(names, splits, strict=True)
    ]


@pytest.mark.parametrize(
    ("names", "pattern", "whole"),
    [
        (["patient001_frame01.png", "patient001_frame12.png", "patient002_frame01.png"], r"(patient\d+)", "patient001"),
        (["a/case_7/1.png", "a/case_7/2.png", "a/case_8/1.png"], r"(case_\d+)", "case_7"),
        (["TCGA_CS_4941_199_1.tif", "TCGA_CS_4941_199_2.tif", "TCGA_CS_5393_1.tif"], None, "TCGA_CS_4941"),
        (["sub-A1_ses-1.nii.gz", "sub-A1_ses-2.nii.gz", "sub-B2_ses-1.nii.gz"], None, "sub-A1"),
        (["oslo_tile_1.tif", "oslo_tile_2.tif", "rome_tile_1.tif"], None, "oslo"),
    ],
)
def test_two_images_of_one_whole_in_two_splits_are_found(names: Sequence[str], pattern: str | None, whole: str) -> None:
    kin = kin_apart(listed(names, ["train", "test", "train"]))
    assert kin is not None
    assert (kin.whole, kin.left.split, kin.right.split) == (whole, "train", "test")
    assert pattern in (None, kin.pattern)
    assert kin_apart(listed(names, ["train", "train", "test"])) is None
    assert kin_apart(listed(names, [None] * 3)) is not None


@pytest.mark.parametrize(
    "names",
    [
        ["ISIC_001.jpg", "ISIC_002.jpg", "ISIC_003.jpg"],
        ["case_1.png", "case_2.png", "case_3.png"],  # each of another one
        ["video_1.png", "a.png", "b.png"],
        ["frame_1.png", "frame_2.png", "frame_3.png"],
    ],
)
def test_names_that_say_nothing_of_it_are_let_alone(names: Sequence[str]) -> None:
    assert kin_apart(listed(names, ["train", "test", "train"])) is None


def test_an_import_tells_and_its_advice_works(tmp_path: Path) -> None:
    for number in range(12):
        for name, content in (("images", pixels(number)), ("masks", truth(number).astype(np.uint8) * 255)):
            path = tmp_path / name / f"patient{number % 4}_{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encoded(content))
    note = discover(tmp_path).notes[-1]
    assert r"--group '(patient\d+)' keeps them in one split" in note
    found = discover(tmp_path, splitting=Splitting(group=r"(patient\d+)"))
    assert not any("by their names" in note for note in found.notes)
    assert {pair.group for pair in found.pairs} == {f"patient{number}" for number in range(4)}
