from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_sources import AMOUNT, encoded, folders, huggingface, pixels, truth, write_pictures

from infosam.data.check.run import check_source
from infosam.data.manifest import discover
from infosam.data.pairs import ReadOptions
from infosam.data.pixels import Unusable, open_pair
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import DataError

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def hub_file(folder: Path, name: str, columns: dict[str, list[object]]) -> Path:
    """As `push_to_hub` lays a data set out."""
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {key: PICTURE if isinstance(cells[0], dict) else pa.string() for key, cells in columns.items()}
    pq.write_table(
        pa.table({key: pa.array(cells, kinds[key]) for key, cells in columns.items()}), path, row_group_size=2
    )
    return folder


def pictures(numbers: range) -> dict[str, list[object]]:
    return {
        "img": [{"bytes": encoded(pixels(n)), "path": f"{n}.png"} for n in numbers],
        "mask": [{"bytes": encoded(truth(n).astype(np.uint8)), "path": f"{n}.png"} for n in numbers],
    }


def test_splits_of_a_saved_dictionary_are_taken(tmp_path: Path) -> None:
    found = discover(huggingface(tmp_path / "set"))
    assert [pair.split for pair in found.pairs].count("val") == 2
    np.testing.assert_array_equal(open_pair(found.pairs[0])[0].mask, truth(0))


def test_files_of_the_hub_are_read_with_their_splits_and_columns(tmp_path: Path) -> None:
    hub_file(tmp_path, "train-00000-of-00001.parquet", pictures(range(4)))
    hub_file(tmp_path, "test-00000-of-00001.parquet", pictures(range(4, AMOUNT)))
    found = discover(tmp_path)
    assert [pair.split for pair in found.pairs] == ["train"] * 3 + ["val"] + ["test"] * 2
    np.testing.assert_array_equal(open_pair(found.pairs[-1])[0].mask, truth(5))


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=["large", "view", "coded"]
)
@pytest.mark.parametrize("file", ["one.parquet", "one.arrow"])
def test_split_and_group_count_in_every_kind_of_text(kind: pa.DataType, file: str, tmp_path: Path) -> None:
    """Or patients would be in two splits."""
    words = {
        "split": ["train", "train", "validation", "test", "test", "test"],
        "group": ["ann", "ann", "bob", "cem", "cem", "dan"],
    }
    columns = {name: pa.array(cells, PICTURE) for name, cells in pictures(range(AMOUNT)).items()}
    columns |= {name: pa.array(cells, pa.string()).cast(kind) for name, cells in words.items()}
    table, path = pa.table(columns), tmp_path / file
    if file.endswith("parquet"):
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": file}]}))
    found = discover(tmp_path)
    assert [pair.split for pair in found.pairs] == ["train", "train", "val", "test", "test", "test"]
    assert [pair.group for pair in found.pairs] == words["group"]


def test_pictures_that_are_files_beside_it_are_found(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    cells: dict[str, list[object]] = {
        key: [{"bytes": None, "path": f"{kind}/{n}.png"} for n in range(AMOUNT)]
        for key, kind in (("image", "images"), ("label", "masks"))
    }
    pq.write_table(pa.table({key: pa.array(value, PICTURE) for key, value in cells.items()}), tmp_path / "all.parquet")
    found = discover(tmp_path / "all.parquet")
    np.testing.assert_array_equal(open_pair(found.pairs[0])[0].mask, truth(int(found.pairs[0].image.stem)))


def test_a_path_that_leads_out_is_never_opened(tmp_path: Path) -> None:
    columns = pictures(range(3))
    columns["img"][1] = {"bytes": None, "path": "../../secret.png"}
    pairs = discover(hub_file(tmp_path, "train.parquet", columns)).pairs
    with pytest.raises(Unusable, match=r"train.parquet:2: img .* lies outside"):
        open_pair(next(pair for pair in pairs if pair.row.endswith(":2")))


def test_equal_names_are_not_taken_for_one_picture(tmp_path: Path) -> None:
    for split in ("train", "test"):
        columns = pictures(range(4))
        for cells in columns.values():
            for cell in cells:
                cell["path"] = "picture.png"  # type: ignore[index]
        hub_file(tmp_path, f"{split}.parquet", columns)
    assert len({pair.image for pair in discover(tmp_path).pairs}) == 8


def test_unknown_columns_are_named_with_the_option(tmp_path: Path) -> None:
    columns = pictures(range(3))
    columns["before"] = columns.pop("img")
    columns["after"] = columns.pop("mask")
    hub_file(tmp_path, "train.parquet", columns)
    with pytest.raises(DataError, match=r"before, after; name one with --image-column"):
        discover(tmp_path)
    assert len(discover(tmp_path, ReadOptions(image_column="before", mask_column="after")).pairs) == 3


def test_other_columns_of_pictures_are_told_and_two_of_masks_are_a_question(tmp_path: Path) -> None:
    columns = pictures(range(3))
    columns["depth"] = columns["img"]
    found = discover(hub_file(tmp_path, "train.parquet", columns))
    assert "images are in column 'img', masks in 'mask'; not read: depth" in found.notes[0]
    columns["annotation"] = columns["mask"]
    hub_file(tmp_path, "train.parquet", columns)
    with pytest.raises(DataError, match=r"which column holds the masks.*mask, annotation; name one with --mask-column"):
        discover(tmp_path)
    assert len(discover(tmp_path, ReadOptions(mask_column="annotation")).pairs) == 3


def test_a_cell_without_a_picture_is_an_unusable_row(tmp_path: Path) -> None:
    columns = pictures(range(4))
    columns["mask"][0] = {"bytes": None, "path": None}
    pairs = discover(hub_file(tmp_path, "train.parquet", columns)).pairs
    bad = next(pair for pair in pairs if pair.row.endswith(":1"))
    with pytest.raises(Unusable, match="holds no picture; remove the row"):
        open_pair(bad)


def test_a_data_set_of_infosam_is_a_source_again(tmp_path: Path) -> None:
    first = import_dataset(folders(tmp_path / "raw"), domain="d", out=tmp_path / "a")
    second = import_dataset(tmp_path / "a", domain="d", out=tmp_path / "b")
    assert second.counts == first.counts
    stores = [open_dataset(tmp_path / name) for name in "ab"]
    for index in range(first.counts["train"]):
        left, right = (store.read("train", index) for store in stores)
        np.testing.assert_array_equal(left.image, right.image)
        np.testing.assert_array_equal(left.mask, right.mask)
    assert stores[0].ids("train") == stores[1].ids("train")


def test_a_wrong_bit_in_a_data_set_of_infosam_is_an_error(tmp_path: Path) -> None:
    """In a photo it would open, and in a mask be another object."""
    import_dataset(folders(tmp_path / "source"), domain="squares", out=tmp_path / "set")
    path = tmp_path / "set/data/part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"part-00000.parquet: is damaged: its SHA-256 .*copy it again"):
        discover(tmp_path / "set")
    assert [finding.kind.name for finding in check_source(tmp_path / "set").findings][:1] == ["listing"]


def test_what_datasets_itself_saves_is_imported(tmp_path: Path) -> None:
    """Both of its layouts, with columns of its own types."""
    import datasets  # takes seconds

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Image(), "group": datasets.Value("large_string")}
    )

    def made(numbers: range) -> datasets.Dataset:
        rows = pictures(numbers)
        cells = {"image": rows["img"], "label": rows["mask"], "group": [f"p{n // 2}" for n in numbers]}
        return datasets.Dataset.from_dict(cells, features=features)

    parts = {"train": made(range(2)), "validation": made(range(2, 4)), "test": made(range(4, AMOUNT))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "dictionary"))
    made(range(AMOUNT)).save_to_disk(str(tmp_path / "single"))
    found = discover(tmp_path / "dictionary")
    assert [(pair.split, pair.group) for pair in found.pairs] == [
        (split, f"p{n}") for n, split in enumerate(("train", "val", "test")) for _ in range(2)
    ]
    for source in ("dictionary", "single"):
        card = import_dataset(tmp_path / source, domain="d", out=tmp_path / f"{source}-set")
        assert card.counts == {"train": 2, "val": 2, "test": 2}
    np.testing.assert_array_equal(open_pair(found.pairs[5])[0].mask, truth(5))
