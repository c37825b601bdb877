from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infosam.data.card import SPLITS
from infosam.data.manifest import Pair, Splitting, check_pairs, discover, find_pairs
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import DataError

WritePair = Callable[..., None]


def splits_of(pairs: list[Pair]) -> Counter[str]:
    return Counter(pair.split for pair in pairs)


def message_of(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        find_pairs(source)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------ layouts


def test_three_csvs_keep_their_splits_order_and_rows(csv_set: Path) -> None:
    pairs = find_pairs(csv_set)
    assert splits_of(pairs) == {"train": 4, "val": 2, "test": 3}
    assert [pair.row for pair in pairs[:2]] == ["train.csv:2", "train.csv:3"]
    assert pairs[0].image.samefile(csv_set / "images" / "train_0.png")
    assert pairs[0].mask.samefile(csv_set / "masks" / "train_0.png")


def test_one_csv_with_a_split_column_reads_common_words(csv_set: Path) -> None:
    rows = [("train_0", "Training"), ("train_1", "validation"), ("train_2", "test")]
    path = csv_set / "all.csv"
    path.write_text("split,image,label\n" + "".join(f"{s},images/{n}.png,masks/{n}.png\n" for n, s in rows))
    assert [pair.split for pair in find_pairs(path)] == ["train", "val", "test"]


def test_a_csv_from_a_spreadsheet_with_byte_order_mark_and_crlf_is_read(csv_set: Path) -> None:
    text = (csv_set / "train.csv").read_text().replace("\n", "\r\n")
    (csv_set / "train.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert splits_of(find_pairs(csv_set))["train"] == 4


def test_folders_with_equal_names_are_split_by_seed(folder_set: Path) -> None:
    found = discover(folder_set, splitting=Splitting(seed=3))
    assert splits_of(found.pairs) == {"train": 14, "val": 3, "test": 3}
    assert [note.split()[1] for note in found.notes] == ["val", "test"]
    assert "seed 3" in found.notes[0]
    assert find_pairs(folder_set, seed=3) == found.pairs
    assert find_pairs(folder_set, seed=4) != found.pairs


def test_split_folders_are_taken_as_given(tmp_path: Path, write_pair: WritePair) -> None:
    for split, amount in (("train", 3), ("val", 1), ("test", 2)):
        for number in range(amount):
            write_pair(tmp_path / "unsorted", f"{split}{number}")
            for kind in ("images", "masks"):
                (tmp_path / "set" / kind / split).mkdir(parents=True, exist_ok=True)
                name = f"{split}{number}.png"
                (tmp_path / "unsorted" / kind / name).rename(tmp_path / "set" / kind / split / name)
    assert splits_of(find_pairs(tmp_path / "set")) == {"train": 3, "val": 1, "test": 2}


def test_image_and_mask_may_have_different_endings(tmp_path: Path, write_pair: WritePair) -> None:
    for name in "abc":
        write_pair(tmp_path, name)
        Image.open(tmp_path / "images" / f"{name}.png").save(tmp_path / "images" / f"{name}.JPG")
        (tmp_path / "images" / f"{name}.png").unlink()
    assert {pair.image.suffix for pair in find_pairs(tmp_path)} == {".JPG"}


# ------------------------------------------------------------------------------------------------------- splits


def test_missing_val_is_drawn_from_train_and_said(csv_set: Path) -> None:
    before = {pair.image for pair in find_pairs(csv_set) if pair.split == "test"}
    (csv_set / "val.csv").unlink()
    found = discover(csv_set)
    assert splits_of(found.pairs) == {"train": 3, "val": 1, "test": 3}
    assert {pair.image for pair in found.pairs if pair.split == "test"} == before
    assert "no val split" in found.notes[0]


def test_masks_of_one_image_stay_in_one_split(tmp_path: Path, write_pair: WritePair) -> None:
    rows = []
    for number in range(10):
        for part in "ab":
            write_pair(tmp_path, f"{number}{part}")
            rows.append(f"images/{number}a.png,masks/{number}{part}.png")
    (tmp_path / "list.csv").write_text("image,label\n" + "\n".join(rows))
    pairs = find_pairs(tmp_path / "list.csv")
    assert len(pairs) == 20
    assert len({(pair.image, pair.split) for pair in pairs}) == 10


def test_a_group_stays_in_one_split(folder_set: Path) -> None:
    rows = [f"images/photo {n}.png,masks/photo {n}.png,patient{n // 4}" for n in range(20)]
    (folder_set / "list.csv").write_text("image,label,group\n" + "\n".join(rows))
    pairs = find_pairs(folder_set / "list.csv")
    assert len({(pair.group, pair.split) for pair in pairs}) == 5
    assert set(splits_of(pairs)) == {"train", "val", "test"}


def test_a_set_to_be_scored_only_keeps_its_single_split(csv_set: Path) -> None:
    (csv_set / "train.csv").unlink()
    (csv_set / "val.csv").unlink()
    assert splits_of(find_pairs(csv_set)) == {"test": 3}


def test_too_few_images_to_split_are_refused(tmp_path: Path, write_pair: WritePair) -> None:
    for name in "ab":
        write_pair(tmp_path, name)
    assert "at least 3 are needed" in message_of(tmp_path)


@pytest.mark.parametrize("amount", [3, 4, 5, 7, 40])
def test_every_drawn_split_gets_something(tmp_path: Path, write_pair: WritePair, amount: int) -> None:
    for number in range(amount):
        write_pair(tmp_path, str(number), size=(2, 2))
    counts = splits_of(find_pairs(tmp_path))
    assert set(counts) == {"train", "val", "test"}
    assert counts["train"] >= counts["val"] == counts["test"]


# -------------------------------------------------------------------------------------------- refused when found


def test_a_source_that_does_not_exist_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    message = message_of(tmp_path / "nothing")
    assert "nothing: no such file or folder" in message
    assert "image,label" in message


def test_a_folder_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "photos.csv").write_text("image,label\n")
    (tmp_path / "archive").mkdir()
    message = message_of(tmp_path)
    assert "archive/, photos.csv" in message
    assert f"did you mean {tmp_path / 'photos.csv'}?" in message


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("image,mask", "no column 'label'; found 'image', 'mask'; did you mean 'mask' for 'label'?"),
        ("Image,label", "did you mean 'Image' for 'image'?"),
        ("img_path,lable", "did you mean 'lable' for 'label'?"),
        ("image;label", "separate the columns with commas"),
        ("", "no column 'image' and no column 'label'; found none"),
    ],
)
def test_missing_columns_are_named_with_what_was_probably_meant(csv_set: Path, header: str, expected: str) -> None:
    (csv_set / "val.csv").write_text(header + "\na.png,b.png\n" if header else "")
    message = message_of(csv_set)
    assert "val.csv" in message
    assert expected in message


def test_a_csv_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image,label\n")
    assert "no image-mask pairs" in message_of(tmp_path / "list.csv")


@pytest.mark.parametrize("bad", ["../secret.png", "images/../../secret.png", "/etc/hostname"])
def test_a_path_out_of_the_folder_is_refused(csv_set: Path, bad: str) -> None:
    with (csv_set / "train.csv").open("a") as file:
        file.write(f"{bad},masks/train_0.png\n")
    message = message_of(csv_set)
    assert "train.csv:6" in message
    assert f"{bad!r} lies outside" in message


def test_a_relative_source_does_not_open_the_way_out(csv_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (csv_set / "list.csv").write_text("image,label\n../x.png,masks/train_0.png\n")
    monkeypatch.chdir(csv_set)
    assert "lies outside" in message_of(Path("list.csv"))


def test_an_empty_cell_and_an_unknown_split_are_both_listed(csv_set: Path) -> None:
    (csv_set / "list.csv").write_text("image,label,split\nimages/a.png,,train\nimages/b.png,masks/b.png,trian\n")
    message = message_of(csv_set / "list.csv")
    assert "2 problems" in message
    assert "list.csv:2: column 'label' is empty" in message
    assert "list.csv:3: split 'trian' is not one of train, val, test" in message


def test_a_row_with_missing_cells_is_listed(csv_set: Path) -> None:
    (csv_set / "val.csv").write_text("image,label\nimages/val_0.png\n")
    assert "val.csv:2: column 'label' is empty" in message_of(csv_set)


def test_an_image_that_is_its_own_mask_is_refused(csv_set: Path) -> None:
    (csv_set / "test.csv").write_text("image,label\nmasks/test_0.png,masks/test_0.png\n")
    assert "test.csv:2: image and mask are the same file" in message_of(csv_set)


def test_a_repeated_row_is_refused(csv_set: Path) -> None:
    with (csv_set / "train.csv").open("a") as file:
        file.write("images/../images/train_1.png,masks/train_1.png\n")
    assert "train.csv:6: the same image and mask as train.csv:3" in message_of(csv_set)


def test_an_image_in_two_splits_is_refused_with_both_rows(csv_set: Path) -> None:
    with (csv_set / "test.csv").open("a") as file:
        file.write("images/train_2.png,masks/train_2.png\n")
    message = message_of(csv_set)
    assert "train (train.csv:4) and test (test.csv:5)" in message


def test_a_group_in_two_splits_and_an_image_in_two_groups_are_refused(csv_set: Path) -> None:
    rows = ["train_0.png,masks/train_0.png,train,p1", "val_0.png,masks/val_0.png,val,p1"]
    rows += ["test_0.png,masks/test_0.png,test,p2", "test_0.png,masks/test_1.png,test,p3"]
    (csv_set / "list.csv").write_text("image,label,split,group\n" + "".join(f"images/{row}\n" for row in rows))
    message = message_of(csv_set / "list.csv")
    assert "group p1 is in two splits" in message
    assert "has group 'p2' in list.csv:4 and 'p3' in list.csv:5" in message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(bytes(range(128, 256)))
    assert "not a readable CSV" in message_of(path)


def test_unmatched_names_are_listed_with_a_guess(folder_set: Path) -> None:
    (folder_set / "masks" / "photo 3.png").rename(folder_set / "masks" / "photo 3_mask.png")
    message = message_of(folder_set)
    assert "photo 3.png: no mask photo 3.*" in message
    assert "is it photo 3_mask.png?" in message
    assert "photo 3_mask.png: mask without an image" in message


def test_two_images_of_one_name_are_refused(folder_set: Path) -> None:
    shutil.copy(folder_set / "images" / "photo 1.png", folder_set / "images" / "photo 1.jpg")
    assert "photo 1.jpg and photo 1.png differ only in their ending" in message_of(folder_set)


def test_pictures_beside_split_folders_are_refused(folder_set: Path) -> None:
    (folder_set / "images" / "train").mkdir()
    (folder_set / "masks" / "val").mkdir()
    message = message_of(folder_set)
    assert "20 pictures" in message
    assert "masks/train: no such folder" in message


# ------------------------------------------------------------------------------------------- refused when opened


def test_good_files_pass_and_progress_is_told(csv_set: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_pairs(find_pairs(csv_set), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 9) for number in range(1, 10)]


def test_every_bad_file_is_listed_at_once(csv_set: Path) -> None:
    masks = csv_set / "masks"
    (masks / "train_0.png").unlink()
    Image.new("L", (10, 10), 255).save(masks / "train_1.png")
    Image.new("L", (32, 24), 0).save(masks / "train_2.png")
    (csv_set / "images" / "train_3.png").write_bytes(b"not a picture")
    Image.fromarray(np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)).save(masks / "val_0.png")
    with pytest.raises(DataError) as caught:
        check_pairs(find_pairs(csv_set))
    message = str(caught.value)
    assert "5 problems" in message
    for expected in (
        "train.csv:2: ", "train_0.png: mask: no such file",
        "train.csv:3: ", "the mask is 10 x 10 px, its image train_1.png 32 x 24 px",
        "train.csv:4: ", "the mask is empty",
        "train.csv:5: ", "not a picture in a known format",
        "val.csv:2: ", "256 different values (0, 1, 2, 3, 4, 5, ...)",
    ):  # fmt: skip
        assert expected in message


def test_a_long_list_is_cut_with_its_length(tmp_path: Path) -> None:
    rows = "".join(f"i{number}.png,m{number}.png\n" for number in range(30))
    (tmp_path / "list.csv").write_text("image,label\n" + rows)
    with pytest.raises(DataError, match=r"30 problems") as caught:
        check_pairs(find_pairs(tmp_path / "list.csv"))
    assert str(caught.value).endswith("... and 10 more")


def test_single_empty_masks_can_be_allowed_but_not_all(csv_set: Path) -> None:
    pairs = find_pairs(csv_set)
    Image.new("L", (32, 24), 0).save(pairs[0].mask)
    check_pairs(pairs, allow_empty=True)
    for pair in pairs:
        Image.new("L", (32, 24), 0).save(pair.mask)
    with pytest.raises(DataError, match="all 9 masks are empty"):
        check_pairs(pairs, allow_empty=True)


def test_lists_that_are_not_read_are_told(csv_set: Path) -> None:
    (csv_set / "test_Kvasir.csv").write_text("image,label\n")
    (csv_set / "all.tsv").write_text("image\tlabel\n")
    (note,) = discover(csv_set).notes
    assert note == (
        "read: test.csv, train.csv, val.csv; not read: all.tsv, test_Kvasir.csv. To test on one of these, copy it to "
        "test.csv"
    )


def test_folders_that_are_no_split_are_told(tmp_path: Path, write_pair: Callable[..., None]) -> None:
    for split, amount in (("train", 4), ("val", 2), ("test", 2), ("hard", 2), ("old", 1)):
        for number in range(amount):
            write_pair(tmp_path / "set", f"{split}/{number}")
    found = discover(tmp_path / "set")
    assert len(found.pairs) == 8
    images = tmp_path / "set" / "images"
    assert found.notes == (f"{images}: not read: hard, old; only folders named train, val or test are",)


@pytest.mark.parametrize("name", ["cafe\u0301", " front", "back ", "a b"], ids=["nfd", "front", "back", "inside"])
def test_odd_names_are_matched_and_stored_as_they_are(name: str, tmp_path: Path, folder_set: Path) -> None:
    for kind in ("images", "masks"):
        (folder_set / kind / "photo 3.png").rename(folder_set / kind / f"{name}.png")
    import_dataset(folder_set, domain="d", out=tmp_path / "set")
    store = open_dataset(tmp_path / "set")
    assert name in [one for split in SPLITS for one in store.ids(split)]


def test_the_test_folders_of_nnu_net_are_the_test_split_or_told(
    tmp_path: Path, write_pair: Callable[..., None]
) -> None:
    for number in range(5):
        write_pair(tmp_path, f"a{number}", seed=number)
    for kind in ("images", "masks"):
        (tmp_path / kind).rename(tmp_path / {"images": "imagesTr", "masks": "labelsTr"}[kind])
    for kind in ("images", "labels"):
        (tmp_path / f"{kind}Ts").mkdir()
        shutil.move(tmp_path / f"{kind}Tr/a4.png", tmp_path / f"{kind}Ts/a4.png")
    assert [pair.image.name for pair in find_pairs(tmp_path) if pair.split == "test"] == ["a4.png"]
    shutil.rmtree(tmp_path / "labelsTs")
    assert any("not read, though there are pictures in it: imagesTs/" in note for note in discover(tmp_path).notes)


@pytest.mark.parametrize(
    ("name", "cure"), [("a.nrrd", "convert them to NIfTI"), ("a.h5", "save their arrays as npy"), ("a.zip", "unpack")]
)
def test_files_that_are_not_read_are_named_with_what_to_do(name: str, cure: str, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / "set" / folder / name).write_bytes(b"x")
    for source, amount in ((tmp_path / "set", 1), (tmp_path, 2)):  # the first of the two folders, and both
        assert f"its files *{Path(name).suffix} ({amount}) are not read: {cure}" in message_of(source)


def test_shapes_instead_of_masks_are_named_once(tmp_path: Path, write_pair: Callable[..., None]) -> None:
    """As SpaceNet comes."""
    for number in range(4):
        write_pair(tmp_path, f"a{number}", seed=number)
        (tmp_path / f"masks/a{number}.png").rename(tmp_path / f"masks/a{number}.geojson")
    said = message_of(tmp_path)
    assert "masks: no picture or volume in it, but a0.geojson, " in said
    assert "its files *.geojson (4) are not read: burn their shapes into masks" in said
    assert "problems" not in said
