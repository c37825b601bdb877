from __future__ import annotations

from pathlib import Path

import pytest
from names import Read, touch

from infosam.data.manifest import Splitting, discover
from infosam.errors import DataError


def listed(path: Path, *rows: str, head: str = "image,label") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


@pytest.mark.parametrize("start", ["/data/user/InfoSAM/polyp/", "set/", "C:/sets/polyp/", "./polyp/"])
def test_folders_of_another_machine_are_left_out_and_told(start: str, tmp_path: Path) -> None:
    touch(tmp_path / "set", "images/#.jpg", "masks/#.png")
    path = listed(tmp_path / "set/list.csv", *(f"{start}images/{n}.jpg,{start}masks/{n}.png" for n in range(4)))
    read = Read(path)
    assert not read.problems
    assert [pair.image for pair in read.listed] == [tmp_path / f"set/images/{n}.jpg" for n in range(4)]
    assert f"list.csv: {start!r}, with which paths begin, is not here" in read.notes


def test_a_path_that_leads_out_is_not_bent_back(tmp_path: Path) -> None:
    touch(tmp_path, "images/#.jpg", "masks/#.png")
    path = listed(tmp_path / "list.csv", "../images/0.jpg,masks/0.png", "/etc/hostname,masks/1.png")
    assert all("lies outside" in problem for problem in Read(path).problems)


def test_lists_are_known_by_all_words_for_splits(tmp_path: Path) -> None:
    touch(tmp_path, "images/#.jpg", "masks/#.png")
    for number, name in enumerate(("Train.csv", "validation.csv", "testing.CSV", "dev.csv", "test_Kvasir.csv")):
        listed(tmp_path / name, f"images/{number % 4}.jpg,masks/{number % 4}.png")
    read = Read(tmp_path)
    assert list(read.splits.values()) == ["train", "val", "test"]
    assert "not read: test_Kvasir.csv, validation.csv" in read.notes


def test_a_mask_for_several_images_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "images/#.jpg", "masks/0.png")
    path = listed(
        tmp_path / "list.csv", *(f"images/{n}.jpg,masks/0.png,test" for n in range(4)), head="image,label,split"
    )
    assert "1 masks are listed for several images, such as masks/0.png for 4" in discover(path).notes[0]


def test_rows_without_a_group_are_told_and_a_column_is_guessed(tmp_path: Path) -> None:
    touch(tmp_path, "images/#.jpg", "masks/#.png")
    rows = [f"images/{n}.jpg,masks/{n}.png,{'p1' if n < 2 else ''}" for n in range(4)]
    path = listed(tmp_path / "list.csv", *rows, head="image,label,patient_id")
    notes = discover(path, splitting=Splitting(group="patient_id")).notes
    assert "2 of 4 rows have no group in 'patient_id'" in notes[0]
    with pytest.raises(DataError, match="did you mean 'patient_id'"):
        discover(path, splitting=Splitting(group="patient"))
