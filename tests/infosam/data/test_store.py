from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infosam.data import shards
from infosam.data import store as store_module
from infosam.data.card import DatasetCard
from infosam.data.store import Store, import_dataset, open_dataset
from infosam.errors import DataError

FIRST_SHARD = "data/part-00000.parquet"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "set"


def imported(source: Path, out: Path, **options: object) -> DatasetCard:
    return import_dataset(source, domain="squares", out=out, **options)  # type: ignore[arg-type]


def test_huge_pictures_make_smaller_row_groups(csv_set: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROW_GROUP_MIB", 0)
    monkeypatch.setattr(store_module, "READ_CACHE_MIB", 0)
    imported(csv_set, out)
    assert pq.ParquetFile(out / FIRST_SHARD).metadata.num_row_groups == 9
    store = open_dataset(out)
    assert [store.read("train", index).id for index in (3, 0, 3)] == ["train_3", "train_0", "train_3"]


def test_a_store_survives_pickling_and_moving_of_workers(csv_set: Path, out: Path) -> None:
    imported(csv_set, out)
    store = open_dataset(out)
    store.read("train", 0)
    copy: Store = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copy.read("train", 3).image, store.read("train", 3).image)


def test_an_index_out_of_range_is_an_index_error(csv_set: Path, out: Path) -> None:
    imported(csv_set, out)
    with pytest.raises(IndexError):
        open_dataset(out).read("val", 2)


def test_the_raw_source_is_refused_with_the_command_to_run(csv_set: Path) -> None:
    with pytest.raises(DataError, match=r"import it first with `infosam data import"):
        open_dataset(csv_set)


@pytest.mark.parametrize("keep_bytes", [0, 100, -20])
def test_a_parquet_file_cut_short_is_refused(csv_set: Path, out: Path, keep_bytes: int) -> None:
    imported(csv_set, out)
    path = out / FIRST_SHARD
    path.write_bytes(path.read_bytes()[:keep_bytes])
    with pytest.raises(DataError, match=r"part-00000.parquet: it cannot be read .*import the data set again"):
        open_dataset(out)


def test_a_missing_or_foreign_parquet_file_is_refused(csv_set: Path, folder_set: Path, out: Path) -> None:
    imported(csv_set, out)
    imported(folder_set, out.with_name("other"))
    shutil.copy(out.with_name("other") / FIRST_SHARD, out / FIRST_SHARD)
    with pytest.raises(DataError, match=r"dataset.json promises"):
        open_dataset(out)
    table = pq.read_table(out / FIRST_SHARD, columns=["id", "split", "image"])
    pq.write_table(table, out / FIRST_SHARD)
    with pytest.raises(DataError, match="lacks the columns domain, fg_fraction"):
        open_dataset(out)
    os.unlink(out / FIRST_SHARD)
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(out)


def test_a_row_that_cannot_be_decoded_is_named(csv_set: Path, out: Path) -> None:
    imported(csv_set, out)
    path = out / FIRST_SHARD
    content = bytearray(path.read_bytes())
    picture = (csv_set / "images" / "train_2.png").read_bytes()
    start = content.index(picture)
    content[start : start + len(picture)] = bytes(len(picture))
    path.write_bytes(bytes(content))
    store = open_dataset(out)
    store.read("train", 1)
    with pytest.raises(DataError, match="row 'train_2' cannot be decoded"):
        store.read("train", 2)
