from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from infosam.data.card import CARD_NAME, DatasetCard
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import DataError

FIRST_SHARD = "data/part-00000.parquet"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "set"


def imported(source: Path, out: Path, **options: object) -> DatasetCard:
    return import_dataset(source, domain="squares", out=out, **options)  # type: ignore[arg-type]


def nothing_left(out: Path) -> bool:
    """Neither the data set, nor a partial one beside it, nor folders made for it."""
    return not out.parent.exists()


# ------------------------------------------------------------------------------------------------------- writing


def test_import_then_read_gives_the_same_pixels(csv_set: Path, out: Path) -> None:
    card = imported(csv_set, out)
    assert card.counts == {"train": 4, "val": 2, "test": 3}
    assert card.written
    store = open_dataset(out)
    assert store.card == card
    assert [store.rows(split) for split in ("train", "val", "test")] == [4, 2, 3]
    assert store.ids("val") == ["val_0", "val_1"]
    sample = store.read("test", 1)
    assert sample.id == "test_1"
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(csv_set / "images" / "test_1.png")))
    np.testing.assert_array_equal(sample.mask, np.asarray(Image.open(csv_set / "masks" / "test_1.png")) == 255)
    assert sorted(path.name for path in out.iterdir()) == ["data", CARD_NAME]
    assert [path.name for path in out.parent.iterdir()] == ["set"]


def test_the_parquet_file_stands_on_its_own(csv_set: Path, out: Path) -> None:
    imported(csv_set, out)
    row = pq.read_table(out / FIRST_SHARD).to_pylist()[0]
    assert row["image"] == {
        "bytes": (csv_set / "images" / "train_0.png").read_bytes(),
        "path": "images/train_0.png",
    }
    assert np.unique(np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))).tolist() == [0, 255]
    assert {name: row[name] for name in ("id", "domain", "split", "group", "width", "height", "fg_fraction")} == {
        "id": "train_0", "domain": "squares", "split": "train", "group": None, "width": 32, "height": 24,
        "fg_fraction": 0.25,
    }  # fmt: skip


def test_rows_lie_in_groups_of_64(tmp_path: Path, write_pair: Callable[..., None], out: Path) -> None:
    for number in range(130):
        write_pair(tmp_path / "source", str(number), size=(4, 4))
    imported(tmp_path / "source", out)
    metadata = pq.ParquetFile(out / FIRST_SHARD).metadata
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [64, 64, 2]
    assert len(set(open_dataset(out).ids("train"))) == 90


def test_several_masks_of_an_image_are_rows_of_their_own(csv_set: Path, out: Path) -> None:
    shutil.copy(csv_set / "masks" / "train_0.png", csv_set / "masks" / "train_0_b.png")
    with (csv_set / "train.csv").open("a") as file:
        file.write("images/train_0.png,masks/train_0_b.png\n")
    imported(csv_set, out)
    store = open_dataset(out)
    assert store.ids("train") == ["train_0", "train_1", "train_2", "train_3", "train_0_b"]
    np.testing.assert_array_equal(store.read("train", 0).image, store.read("train", 4).image)


def test_ids_are_unique_even_if_neither_name_is(tmp_path: Path, write_pair: Callable[..., None], out: Path) -> None:
    rows = []
    for seed, folder in enumerate("abc"):  # different pictures: equal ones would stay in one split
        write_pair(tmp_path / "source" / folder, "frame", seed=seed)
        rows.append(f"{folder}/images/frame.png,{folder}/masks/frame.png")
    (tmp_path / "source" / "list.csv").write_text("image,label\n" + "\n".join(rows))
    imported(tmp_path / "source" / "list.csv", out)
    store = open_dataset(out)
    ids = {*store.ids("train"), *store.ids("val"), *store.ids("test")}
    assert ids == {f"{folder}_images_frame.png__{folder}_masks_frame.png" for folder in "abc"}


def test_notes_on_drawn_splits_are_kept(folder_set: Path, out: Path) -> None:
    imported(folder_set, out, seed=5)
    assert any("seed 5" in note for note in open_dataset(out).card.notes)


# -------------------------------------------------------------------------------------------------------- digest


def test_the_digest_depends_on_content_only(csv_set: Path, tmp_path: Path) -> None:
    first = imported(csv_set, tmp_path / "a").digest
    shutil.copytree(csv_set, tmp_path / "copy")
    lines = (tmp_path / "copy" / "train.csv").read_text().splitlines()
    (tmp_path / "copy" / "train.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    mask = tmp_path / "copy" / "masks" / "train_0.png"
    Image.fromarray(np.asarray(Image.open(mask)) // 255).save(mask)
    assert imported(tmp_path / "copy", tmp_path / "b").digest == first


def test_the_digest_sees_a_changed_pixel_and_a_moved_row(csv_set: Path, tmp_path: Path) -> None:
    first = imported(csv_set, tmp_path / "a").digest
    mask = csv_set / "masks" / "train_0.png"
    pixels = np.array(Image.open(mask))
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(mask)
    second = imported(csv_set, tmp_path / "b").digest
    (csv_set / "val.csv").rename(csv_set / "keep.csv")
    (csv_set / "test.csv").rename(csv_set / "val.csv")
    (csv_set / "keep.csv").rename(csv_set / "test.csv")
    third = imported(csv_set, tmp_path / "c").digest
    assert len({first, second, third}) == 3


# ------------------------------------------------------------------------------------------ refused, nothing left


def test_bad_files_leave_nothing_behind(csv_set: Path, out: Path) -> None:
    (csv_set / "masks" / "test_2.png").unlink()
    Image.new("L", (32, 24)).save(csv_set / "masks" / "val_1.png")
    with pytest.raises(DataError) as caught:
        imported(csv_set, out)
    assert "val.csv:3" in str(caught.value)
    assert "test.csv:4" in str(caught.value)
    assert nothing_left(out)


def test_one_empty_mask_needs_permission_and_all_empty_have_none(csv_set: Path, out: Path) -> None:
    for mask in (csv_set / "masks").iterdir():
        Image.new("L", (32, 24)).save(mask)
    for allow_empty in (False, True):
        with pytest.raises(DataError, match="all 9 masks are empty"):
            imported(csv_set, out, allow_empty=allow_empty)
    Image.new("L", (32, 24), 255).save(csv_set / "masks" / "train_0.png")
    with pytest.raises(DataError, match="8 problems"):
        imported(csv_set, out)
    assert nothing_left(out)
    imported(csv_set, out, allow_empty=True)
    assert not open_dataset(out).read("train", 1).mask.any()


def test_an_interruption_leaves_nothing_behind(csv_set: Path, out: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        imported(csv_set, out, progress=interrupt)
    assert nothing_left(out)


def test_a_place_that_cannot_be_written_is_refused(csv_set: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be written"):
        imported(csv_set, tmp_path / "file" / "set")


def test_a_bad_domain_is_refused_first(tmp_path: Path, out: Path) -> None:
    with pytest.raises(DataError, match="domain 'a b'"):
        import_dataset(tmp_path / "missing", domain="a b", out=out)


# ------------------------------------------------------------------------------------------- something is at out


def test_importing_twice_writes_once(csv_set: Path, out: Path) -> None:
    first = imported(csv_set, out)
    before = (out / FIRST_SHARD).stat()
    second = imported(csv_set, out)
    assert not second.written
    assert second.digest == first.digest
    assert (out / FIRST_SHARD).stat().st_mtime_ns == before.st_mtime_ns
    assert [path.name for path in out.parent.iterdir()] == ["set"]


def test_another_data_set_is_replaced_only_on_request(csv_set: Path, folder_set: Path, out: Path) -> None:
    imported(csv_set, out)
    with pytest.raises(DataError, match=r"already holds another data set \(domain squares, 9 rows.*--overwrite"):
        imported(folder_set, out)
    assert open_dataset(out).rows("val") == 2
    imported(folder_set, out, overwrite=True)
    assert open_dataset(out).rows("val") == 3
    assert [path.name for path in out.parent.iterdir()] == ["set"]


def test_the_same_data_of_another_domain_is_another_data_set(csv_set: Path, out: Path) -> None:
    imported(csv_set, out)
    with pytest.raises(DataError, match="another data set"):
        import_dataset(csv_set, domain="circles", out=out)


def test_a_failed_replacement_keeps_the_old_data_set(csv_set: Path, folder_set: Path, out: Path) -> None:
    card = imported(csv_set, out)
    (folder_set / "masks" / "photo 7.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="photo 7"):
        imported(folder_set, out, overwrite=True)
    assert open_dataset(out).card == card
    assert [path.name for path in out.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_and_files_of_others_are_never_touched(csv_set: Path, out: Path, overwrite: bool) -> None:
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work")
    for place in (out, out / "thesis.txt"):
        with pytest.raises(DataError, match="is not a data set of infosam, so it is left alone"):
            imported(csv_set, place, overwrite=overwrite)
    assert (out / "thesis.txt").read_text() == "years of work"


def test_a_data_set_with_files_of_others_in_it_is_not_replaced(csv_set: Path, folder_set: Path, out: Path) -> None:
    card = imported(csv_set, out)
    shutil.copytree(folder_set, out / "data" / "raw")
    with pytest.raises(DataError, match=r"holds other files, too, such as data/raw/.*move them"):
        imported(out / "data" / "raw", out, overwrite=True)
    assert open_dataset(out).card == card
    shutil.rmtree(out / "data" / "raw")
    assert imported(folder_set, out, overwrite=True).written


def test_a_data_set_that_came_meanwhile_is_not_replaced(csv_set: Path, folder_set: Path, out: Path) -> None:
    def meanwhile(done: int, total: int) -> None:
        if done == total:
            imported(csv_set, out)

    with pytest.raises(DataError, match="already holds another data set"):
        import_dataset(folder_set, domain="polyp", out=out, progress=meanwhile)
    assert open_dataset(out).ids("train")[0] == "train_0"


def test_a_link_to_another_disk_stays_one(csv_set: Path, folder_set: Path, tmp_path: Path) -> None:
    real, out = tmp_path / "disk" / "set", tmp_path / "set"
    real.mkdir(parents=True)
    out.symlink_to(real)
    for source in (csv_set, folder_set):
        card = imported(source, out, overwrite=True)
        assert out.is_symlink()
        assert open_dataset(real).card.digest == card.digest
        assert [path.name for path in real.parent.iterdir()] == ["set"]


def test_killed_between_two_renames_the_old_data_set_is_put_back(csv_set: Path, folder_set: Path, out: Path) -> None:
    card = imported(csv_set, out)
    out.rename(out.with_name(".set.01234567.replaced"))
    out.with_name(".set.01234567.partial").mkdir()
    with pytest.raises(DataError, match="already holds another data set"):
        imported(folder_set, out)
    assert open_dataset(out).card == card
    assert [path.name for path in out.parent.iterdir()] == ["set"]


def test_an_empty_folder_is_used(csv_set: Path, out: Path) -> None:
    out.mkdir(parents=True)
    assert imported(csv_set, out).written


def test_the_source_itself_is_no_place(csv_set: Path) -> None:
    with pytest.raises(DataError, match="is the source itself"):
        imported(csv_set, csv_set)
