from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from old_form import aged

from infosam.data import shards
from infosam.data.card import DatasetCard, read_card
from infosam.data.remote import local_copy
from infosam.data.shards import ShardWriter, row_tables
from infosam.data.statistics import statistics
from infosam.data.store import import_dataset, open_dataset
from infosam.download import sha256_of_file
from infosam.errors import DataError


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows in a group, and a file for each group."""
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 4)
    monkeypatch.setattr(shards, "SHARD_MIB", 0)


def imported(source: Path, out: Path) -> DatasetCard:
    return import_dataset(source, domain="d", out=out)


def test_many_files_are_the_same_data_set_as_one(
    folder_set: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    one = imported(folder_set, tmp_path / "one")
    request.getfixturevalue("small_shards")
    many = imported(folder_set, tmp_path / "many")
    assert [shard.rows for shard in one.shards] == [20]
    assert [shard.rows for shard in many.shards] == [4, 4, 4, 4, 4]
    assert many.digest == one.digest
    first, second = open_dataset(tmp_path / "one"), open_dataset(tmp_path / "many")
    for split in ("train", "val", "test"):
        assert first.ids(split) == second.ids(split)
        for index in range(first.rows(split)):
            np.testing.assert_array_equal(first.read(split, index).image, second.read(split, index).image)
    assert statistics(tmp_path / "one") == statistics(tmp_path / "many")
    assert len({path.name for path in (tmp_path / "many" / "data").iterdir()}) == 5


@pytest.mark.usefixtures("small_shards")
def test_the_card_and_every_file_say_what_they_are(csv_set: Path, tmp_path: Path) -> None:
    card = imported(csv_set, tmp_path / "set")
    assert card == read_card(tmp_path / "set")
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["schema_version"] == 2
    assert [shard.name for shard in card.shards] == [f"data/part-{number:05}.parquet" for number in range(3)]
    for shard in card.shards:
        path = tmp_path / "set" / shard.name
        metadata = pq.read_schema(path).metadata
        assert json.loads(metadata[b"infosam"]) == {"schema_version": 2}
        assert pq.read_metadata(path).num_rows == shard.rows
        assert sha256_of_file(path) == shard.sha256


@pytest.mark.usefixtures("small_shards")
def test_pandas_and_arrow_open_the_folder_of_files(csv_set: Path, tmp_path: Path) -> None:
    imported(csv_set, tmp_path / "set")
    frame = pandas.read_parquet(tmp_path / "set" / "data")
    assert frame["split"].value_counts().to_dict() == {"train": 4, "test": 3, "val": 2}
    assert frame["image"][0]["bytes"] == (csv_set / "images" / "train_0.png").read_bytes()
    table = pyarrow.dataset.dataset(tmp_path / "set" / "data").to_table(columns=["id", "fg_fraction"])
    assert table.num_rows == 9


@pytest.mark.usefixtures("small_shards")
def test_hugging_face_opens_the_files_as_pictures(csv_set: Path, tmp_path: Path) -> None:
    import datasets  # takes seconds

    imported(csv_set, tmp_path / "set")
    found = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "set/data/*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(found) == 9
    assert found[0]["image"].size == found[0]["mask"].size == (32, 24)
    assert found.features["image"] == datasets.Image()


def write_one_and_stop(folder: Path) -> None:
    with ShardWriter(folder) as writer:
        writer.add({"image": {"bytes": b"x", "path": "a"}, "mask": {"bytes": b"y", "path": "b"}, "id": "1"})
        raise KeyboardInterrupt


@pytest.mark.parametrize("rows", [1, 64])
def test_a_stopped_writer_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", rows)  # 1: the row is in a file already
    with pytest.raises(KeyboardInterrupt):
        write_one_and_stop(tmp_path)
    assert not list((tmp_path / "data").iterdir())


# ------------------------------------------------------------------------------------------------------ version 1


def test_the_old_form_is_read_as_before(folder_set: Path, tmp_path: Path) -> None:
    card = imported(folder_set, tmp_path / "set")
    before = open_dataset(tmp_path / "set")
    image = before.read("val", 1).image
    aged(tmp_path / "set")
    store = open_dataset(tmp_path / "set")
    assert (store.card.digest, store.card.counts, store.card.notes) == (card.digest, card.counts, card.notes)
    assert store.ids("train") == before.ids("train")
    np.testing.assert_array_equal(store.read("val", 1).image, image)
    assert sum(row.masks for row in statistics(tmp_path / "set")) == 20
    assert imported(folder_set, tmp_path / "set").written is False
    assert import_dataset(tmp_path / "set", domain="d", out=tmp_path / "again").digest == card.digest


# ------------------------------------------------------------------------------------------------------- damage


def test_a_row_group_of_several_pieces_is_one(csv_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(csv_set, tmp_path / "whole")
    monkeypatch.setattr(shards, "PIECE_MIB", 0)  # a piece for each row
    imported(csv_set, tmp_path / "pieces")
    whole, pieces = (pq.ParquetFile(tmp_path / name / "data/part-00000.parquet") for name in ("whole", "pieces"))
    assert pieces.num_row_groups == whole.num_row_groups == 1
    assert pieces.read().equals(whole.read())


@pytest.mark.parametrize("field", ["domain", "digest", "shard"])
def test_a_card_of_a_stranger_does_not_lead_out(csv_set: Path, tmp_path: Path, field: str) -> None:
    """A copy of a bucket is named after domain and digest."""
    imported(csv_set, tmp_path / "set")
    path = tmp_path / "set" / "dataset.json"
    content = json.loads(path.read_text())
    place, key = (content["shards"][0], "name") if field == "shard" else (content, field)
    place[key] = "../other/data/part-00000.parquet"
    path.write_text(json.dumps(content))
    for read in (open_dataset, lambda folder: local_copy(str(folder), tmp_path / "cache")):
        with pytest.raises(DataError, match="no name that infosam gives"):
            read(tmp_path / "set")


@pytest.mark.usefixtures("small_shards")
def test_a_missing_file_is_named(csv_set: Path, tmp_path: Path) -> None:
    imported(csv_set, tmp_path / "set")
    (tmp_path / "set/data/part-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"part-00001.parquet: it cannot be read"):
        list(row_tables(read_card(tmp_path / "set"), ["split"]))


def test_files_hold_between_the_limit_and_twice_as_much(
    write_pair: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with 128 MiB, at limits of 1 MiB: pictures of noise, 0.2 MiB each."""
    monkeypatch.setattr(shards, "SHARD_MIB", 1)
    monkeypatch.setattr(shards, "ROW_GROUP_MIB", 1)
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 4)
    for number in range(30):
        write_pair(tmp_path / "source", str(number), size=(256, 256), seed=number)
    sizes = [
        (tmp_path / "set" / shard.name).stat().st_size / 2**20
        for shard in imported(tmp_path / "source", tmp_path / "set").shards
    ]
    assert len(sizes) >= 3
    assert all(1 <= size <= 2.1 for size in sizes[:-1])
    assert 0 < sizes[-1] <= 2.1
