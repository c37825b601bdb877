"""Data sets that grow and are split anew: whole at every moment, and never an image or group in two splits."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import typer
from old_form import aged
from PIL import Image
from typer.testing import CliRunner

from infosam.data import growing, shards
from infosam.data.card import DatasetCard, read_card
from infosam.data.commands import register
from infosam.data.growing import append, resplit
from infosam.data.known import known_rows
from infosam.data.manifest import Splitting
from infosam.data.statistics import statistics
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import DataError

SPLITS = ("train", "val", "test")
Write = Callable[..., None]


@pytest.fixture
def grown_set(csv_set: Path, tmp_path: Path) -> Path:
    """The data set of `csv_set`."""
    import_dataset(csv_set, domain="squares", out=tmp_path / "set")
    return tmp_path / "set"


def pictures(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Split and pixels of every row by id."""
    store = open_dataset(folder)
    return {
        store.ids(split)[index]: (split, store.read(split, index).image.tobytes())
        for split in SPLITS
        for index in range(store.rows(split))
    }


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# -------------------------------------------------------------------------------------------------------- append


def test_rows_are_added_beside_the_old_files(grown_set: Path, more: Path) -> None:
    before, stat = pictures(grown_set), (grown_set / "data/part-00000.parquet").stat()
    grown = append(more, grown_set)
    assert (grown.added, grown.skipped, grown.card.counts) == (6, 0, {"train": 6, "val": 4, "test": 5})
    assert read_card(grown_set) == grown.card
    assert pictures(grown_set).items() > before.items()
    now = (grown_set / "data/part-00000.parquet").stat()
    assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    assert files(grown_set) == ["data/part-00000.parquet", "data/part-00001.parquet", "dataset.json"]


def test_other_programs_read_what_has_grown(grown_set: Path, more: Path, tmp_path: Path) -> None:
    """Also after a re-split, whose table lies beside the folder that they are given."""
    import datasets  # takes seconds

    append(more, grown_set)
    resplit(grown_set, seed=1)
    ids = sorted(row.id for row in known_rows(read_card(grown_set)))
    assert sorted(pandas.read_parquet(grown_set / "data")["id"]) == ids
    assert sorted(pyarrow.dataset.dataset(grown_set / "data").to_table(["id"])["id"].to_pylist()) == ids
    loaded = datasets.load_dataset(str(grown_set / "data"), cache_dir=str(tmp_path / "cache"))["train"]
    assert sorted(loaded["id"]) == ids
    assert loaded[0]["image"].size == (loaded[0]["width"], loaded[0]["height"])


def test_the_digest_is_that_of_one_import(grown_set: Path, csv_set: Path, more: Path, tmp_path: Path) -> None:
    grown = append(more, grown_set)
    for name in SPLITS:
        rows = [line.rpartition(",")[0] for line in more.read_text().splitlines() if line.endswith(name)]
        with (csv_set / f"{name}.csv").open("a") as file:
            file.write("\n".join(rows) + "\n")
    shutil.copytree(more.parent / "images", csv_set / "images", dirs_exist_ok=True)
    shutil.copytree(more.parent / "masks", csv_set / "masks", dirs_exist_ok=True)
    assert import_dataset(csv_set, domain="squares", out=tmp_path / "whole").digest == grown.card.digest


def test_the_same_rows_are_skipped(grown_set: Path, csv_set: Path, more: Path) -> None:
    assert append(more, grown_set).added == 6
    for source, amount in ((more, 6), (csv_set, 9), (grown_set, 15)):
        grown = append(source, grown_set)
        assert (grown.added, grown.skipped, grown.card.written) == (0, amount, False)
    assert len(read_card(grown_set).shards) == 2


def test_an_id_of_other_content_is_refused_and_nothing_changes(grown_set: Path, more: Path, write_pair: Write) -> None:
    before = {name: (grown_set / name).read_bytes() for name in files(grown_set)}
    write_pair(more.parent, "train_0", seed=99)
    with more.open("a") as file:
        file.write("\nimages/train_0.png,masks/train_0.png,train\n")
    with pytest.raises(DataError, match=r"list.csv:8: id 'train_0' is in the data set already, with another"):
        append(more, grown_set)
    assert {name: (grown_set / name).read_bytes() for name in files(grown_set)} == before


def test_a_bad_file_changes_nothing(grown_set: Path, more: Path) -> None:
    (more.parent / "masks" / "val_11.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="val_11"):
        append(more, grown_set)
    assert files(grown_set) == ["data/part-00000.parquet", "dataset.json"]
    assert sum(read_card(grown_set).counts.values()) == 9


def test_a_known_picture_stays_in_its_split(grown_set: Path, csv_set: Path, tmp_path: Path, write_pair: Write) -> None:
    source = tmp_path / "again"
    for number in range(12):
        write_pair(source, f"new_{number}")
    shutil.copy(csv_set / "images" / "test_1.png", source / "images" / "other_name.png")
    mask = np.zeros((24, 32), np.uint8)
    mask[:5] = 255
    Image.fromarray(mask).save(source / "masks" / "other_name.png")
    append(source, grown_set)
    store = open_dataset(grown_set)
    assert "other_name" in store.ids("test")
    both = (store.ids("test").index("test_1"), store.ids("test").index("other_name"))
    assert both in store.images("test")


def test_a_known_picture_in_another_split_is_refused(grown_set: Path, csv_set: Path, more: Path) -> None:
    shutil.copy(csv_set / "images" / "test_1.png", more.parent / "images" / "train_10.png")
    with pytest.raises(DataError, match=r"the source has it in train but the data set has its picture in test"):
        append(more, grown_set)


def test_equal_paths_of_other_pictures_stay_apart(grown_set: Path, tmp_path: Path, write_pair: Write) -> None:
    write_pair(tmp_path / "other", "train_0", seed=5)
    (tmp_path / "other" / "masks" / "train_0.png").rename(tmp_path / "other" / "masks" / "fresh.png")
    write_pair(tmp_path / "other", "train_1", seed=6)
    (tmp_path / "other" / "masks" / "train_1.png").rename(tmp_path / "other" / "masks" / "fresh_2.png")
    rows = "images/train_0.png,masks/fresh.png\nimages/train_0.png,masks/fresh_2.png\n"
    (tmp_path / "other" / "list.csv").write_text("image,label\n" + rows)
    append(tmp_path / "other" / "list.csv", grown_set, split="train")
    store = open_dataset(grown_set)
    assert store.ids("train")[-2:] == ["fresh", "fresh_2"]
    assert store.images("train")[-1] == (4, 5)
    assert len(store.images("train")) == 5


@pytest.fixture
def patients(tmp_path: Path, write_pair: Write) -> Callable[[str, list[str]], Path]:
    """A folder of images named patient_number."""

    def write(name: str, images: list[str]) -> Path:
        for image in images:
            write_pair(tmp_path / name, image)
        return tmp_path / name

    return write


def group_splits(folder: Path) -> dict[str, set[str]]:
    """The splits of every patient."""
    found: dict[str, set[str]] = {}
    for row_id, (split, _) in pictures(folder).items():
        found.setdefault(row_id.partition("_")[0], set()).add(split)
    return found


def test_groups_grow_where_they_are(patients: Callable[[str, list[str]], Path], tmp_path: Path) -> None:
    splitting = Splitting(group=r"p(\d+)_")
    first = patients("first", [f"p{patient}_{number}" for patient in range(8) for number in range(2)])
    import_dataset(first, domain="d", out=tmp_path / "set", splitting=splitting)
    before = group_splits(tmp_path / "set")
    second = patients("second", [f"p{patient}_{number}" for patient in range(12) for number in (7, 8)])
    append(second, tmp_path / "set", splitting=splitting)
    after = group_splits(tmp_path / "set")
    assert all(len(splits) == 1 for splits in after.values())
    assert after.items() > before.items()
    with pytest.raises(DataError, match=r"has group None here and '0' in the data set"):
        append(first, tmp_path / "set")


def test_few_images_without_split_go_to_train_or_where_they_are_told(
    grown_set: Path, patients: Callable[[str, list[str]], Path]
) -> None:
    grown = append(patients("one", ["a1", "a2"]), grown_set)
    assert grown.card.counts["train"] == 6
    assert "2 new images (or groups) without a split go to train" in grown.notes[0]
    assert append(patients("two", ["b1"]), grown_set, split="test").card.counts["test"] == 4


def test_the_old_form_grows(grown_set: Path, more: Path) -> None:
    digest = append(more, shutil.copytree(grown_set, grown_set.with_name("new"))).card.digest
    before = (aged(grown_set) / "data.parquet").stat()
    grown = append(more, grown_set)
    assert grown.card.digest == digest
    assert files(grown_set) == ["data/part-00000.parquet", "data/part-00001.parquet", "dataset.json"]
    assert (grown_set / "data/part-00000.parquet").stat().st_ino == before.st_ino
    assert len(pictures(grown_set)) == 15
    schemas = [pq.read_schema(path) for path in (grown_set / "data").iterdir()]
    assert schemas[0].equals(schemas[1])


# ------------------------------------------------------------------------------------------------------- resplit


def test_splits_are_drawn_anew_without_touching_the_pictures(grown_set: Path) -> None:
    before, stat = pictures(grown_set), (grown_set / "data/part-00000.parquet").stat()
    grown = resplit(grown_set, seed=3)
    after = pictures(grown_set)
    assert {row: pixels for row, (_, pixels) in after.items()} == {row: pixels for row, (_, pixels) in before.items()}
    assert after != before
    assert grown.card.counts == {"train": 7, "val": 1, "test": 1}
    assert (grown_set / "data/part-00000.parquet").stat().st_mtime_ns == stat.st_mtime_ns
    assert [row.masks for row in statistics(grown_set)] == [7, 1, 1]
    assert resplit(grown_set, seed=3).card.written is False
    again = resplit(grown_set, seed=4)
    assert again.card.digest != grown.card.digest
    assert files(grown_set) == ["data/part-00000.parquet", "dataset.json", again.card.moves]


def test_the_digest_is_that_of_an_import_with_these_splits(grown_set: Path, tmp_path: Path) -> None:
    digest = resplit(grown_set, seed=3).card.digest
    assert import_dataset(grown_set, domain="squares", out=tmp_path / "copy").digest == digest
    assert pictures(tmp_path / "copy") == pictures(grown_set)


def test_groups_stay_together_and_are_remembered(patients: Callable[[str, list[str]], Path], tmp_path: Path) -> None:
    source = patients("first", [f"p{patient}_{number}" for patient in range(8) for number in range(3)])
    import_dataset(source, domain="d", out=tmp_path / "set")
    resplit(tmp_path / "set", seed=1, group=r"p(\d+)_", stratify=True)
    before = group_splits(tmp_path / "set")
    assert all(len(splits) == 1 for splits in before.values())
    assert set.union(*before.values()) == set(SPLITS)
    assert [row.groups for row in statistics(tmp_path / "set")] == [6, 1, 1]
    append(patients("more", [f"p{p}_9" for p in range(8)]), tmp_path / "set", splitting=Splitting(group=r"p(\d+)_"))
    assert group_splits(tmp_path / "set") == before
    resplit(tmp_path / "set", seed=2)
    assert all(len(splits) == 1 for splits in group_splits(tmp_path / "set").values())
    with pytest.raises(DataError, match="widen the pattern"):
        resplit(tmp_path / "set", group="x(y)")


def test_equal_pictures_stay_together(tmp_path: Path, write_pair: Write) -> None:
    for number in range(20):
        write_pair(tmp_path / "source", f"{number:02}", seed=number // 2)
    import_dataset(tmp_path / "source", domain="d", out=tmp_path / "set")
    for seed in range(3):
        resplit(tmp_path / "set", seed=seed)
        found: dict[bytes, set[str]] = {}
        for split, pixels in pictures(tmp_path / "set").values():
            found.setdefault(pixels, set()).add(split)
        assert all(len(splits) == 1 for splits in found.values())


def test_the_old_form_is_split_anew_and_grows(grown_set: Path, more: Path) -> None:
    digest = resplit(shutil.copytree(grown_set, grown_set.with_name("new")), seed=3).card.digest
    grown = resplit(aged(grown_set), seed=3)
    assert grown.card.digest == digest
    assert files(grown_set) == ["data.parquet", "dataset.json", grown.card.moves]
    assert append(more, grown_set).added == 6
    assert len(pictures(grown_set)) == 15


# ----------------------------------------------------------------------------------------- interrupted and damaged


@pytest.mark.parametrize("change", [append, resplit])
@pytest.mark.parametrize("form", ["old", "new"])
def test_stopped_at_any_step_the_old_set_is_whole(
    grown_set: Path, more: Path, monkeypatch: pytest.MonkeyPatch, change: object, form: str
) -> None:
    """A kill runs no clean-up: everything that would be done after it is taken away."""
    if form == "old":
        aged(grown_set)
    run = (lambda: append(more, grown_set)) if change is append else (lambda: resplit(grown_set, seed=3))
    before, card = pictures(grown_set), read_card(grown_set)
    steps = [(shards.os, "replace"), (shards.os, "fsync"), (growing, "write_card"), (shards.pq, "ParquetWriter")]
    for place, name in steps:
        with monkeypatch.context() as patch:
            patch.setattr(growing, "_sweep", lambda card: None)
            patch.setattr(shards.ShardWriter, "__exit__", lambda *_: None)

            def killed(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(place, name, killed)
            if change is append or name != "ParquetWriter":
                with pytest.raises(KeyboardInterrupt):
                    run()
        assert read_card(grown_set) == card
        assert pictures(grown_set) == before
    changed: DatasetCard = run().card
    assert changed.written
    named = {"dataset.json", *(shard.name for shard in changed.shards), *([changed.moves] if changed.moves else [])}
    assert set(files(grown_set)) == named


def test_damage_is_not_signed_anew(grown_set: Path, more: Path) -> None:
    path = grown_set / "data/part-00000.parquet"
    table = pq.read_table(path)
    names = [f"x{name}" for name in table["id"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("id"), "id", [names]), path)
    for change in (lambda: append(more, grown_set), lambda: resplit(grown_set, seed=3)):
        with pytest.raises(DataError, match="digest differs"):
            change()


def test_splits_of_other_rows_are_refused(grown_set: Path) -> None:
    moves = grown_set / str(resplit(grown_set, seed=3).card.moves)
    table = pq.read_table(moves)
    pq.write_table(table.take(list(range(8, -1, -1))), moves)
    with pytest.raises(DataError, match="its rows are not those of the data set"):
        open_dataset(grown_set)
    moves.unlink()
    with pytest.raises(DataError, match=r"splits-.*cannot be read"):
        open_dataset(grown_set)


def test_two_at_once_are_refused(grown_set: Path, more: Path) -> None:
    handle = os.open(grown_set, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another command is changing this data set"):
            append(more, grown_set)
    finally:
        os.close(handle)
    assert append(more, grown_set).added == 6


def test_files_of_others_are_left_alone(grown_set: Path, more: Path) -> None:
    for name in ("notes.parquet", "data/mine.parquet", "data/part-00007.parquet", ".x.partial"):
        (grown_set / name).write_text("x")
    append(more, grown_set)
    kept = files(grown_set)
    assert {"notes.parquet", "data/mine.parquet", ".x.partial"} < set(kept)
    assert "data/part-00007.parquet" not in kept


# ------------------------------------------------------------------------------------------------------ commands


def test_the_commands_say_what_they_did(grown_set: Path, more: Path) -> None:
    app = typer.Typer()
    register(app)
    runner = CliRunner()
    done = runner.invoke(app, ["data", "append", str(more), "--to", str(grown_set)])
    assert done.exit_code == 0, done.output
    assert "6 rows added: " in done.stdout
    done = runner.invoke(app, ["data", "append", str(more), "--to", str(grown_set)])
    assert "0 rows added, 6 that were in it already skipped" in done.stdout
    done = runner.invoke(app, ["data", "resplit", str(grown_set), "--seed", "3"])
    assert "Split anew:" in done.stdout
    assert "seed 3" in done.stderr
    assert "Split so already:" in runner.invoke(app, ["data", "resplit", str(grown_set), "--seed", "3"]).stdout


def test_scenes_are_cut_when_they_are_added(grown_set: Path, more: Path) -> None:
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, ["data", "append", str(more), "--to", str(grown_set), "--tile", "16"])
    assert done.exit_code == 0, done.output
    tiles = {name: pixels for name, (_, pixels) in pictures(grown_set).items() if "_y" in name}
    assert len(tiles) > 6
    assert {len(pixels) for pixels in tiles.values()} == {16 * 16 * 3}
