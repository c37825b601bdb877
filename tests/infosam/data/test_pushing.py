from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from object_store import ObjectStore, object_store

from infosam import cli
from infosam.data import manifest, pushing, shards
from infosam.data.card import read_card
from infosam.data.growing import append, resplit
from infosam.data.pushing import push
from infosam.data.remote import local_copy, remote_card
from infosam.data.store import import_dataset, open_dataset
from infosam.errors import DataError

BUCKET = "memory://shelf/set"


@pytest.fixture
def made(sharded_set: Path) -> Iterator[Path]:
    """A data set of three files; the bucket is emptied afterwards."""
    yield sharded_set
    memory: Any = fsspec.filesystem("memory")
    if memory.exists("/shelf"):
        memory.rm("/shelf", recursive=True)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are sent."""
    names: list[str] = []
    real = pushing._send

    def counted(system: Any, file: Path, path: str) -> None:
        real(system, file, path)
        names.append(file.name)

    monkeypatch.setattr(pushing, "_send", counted)
    return names


@pytest.mark.parametrize("where", ["bucket", "file", "path"])
def test_what_was_pushed_is_pulled(made: Path, tmp_path: Path, sent: list[str], where: str) -> None:
    place = tmp_path / "shelf" / "set"
    url = {"bucket": BUCKET, "file": place.as_uri(), "path": str(place)}[where]
    told: list[tuple[int, int | None]] = []
    assert push(made, url, lambda done, total: told.append((done, total)))
    assert sent == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "dataset.json"]
    assert told[-1][0] == told[-1][1]
    folder = local_copy(url, tmp_path / "cache")
    assert open_dataset(folder).ids("train") == open_dataset(made).ids("train")
    assert not push(made, url)
    assert len(sent) == 4


def test_only_what_is_new_is_sent(made: Path, csv_set: Path, tmp_path: Path, sent: list[str]) -> None:
    push(made, BUCKET)
    resplit(made, seed=3)
    sent.clear()
    assert push(made, BUCKET)
    assert sent == [read_card(made).moves, "dataset.json"]
    assert open_dataset(local_copy(BUCKET, tmp_path / "cache")).ids("val") == open_dataset(made).ids("val")


def test_one_that_was_stopped_leaves_what_was_there(
    made: Path, tmp_path: Path, more: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(made, BUCKET)
    before = read_card(made).digest
    append(more, made)
    real = pushing._send

    def stopped(system: Any, file: Path, path: str) -> None:
        if file.name == "dataset.json":
            raise KeyboardInterrupt
        real(system, file, path)

    with monkeypatch.context() as patch:
        patch.setattr(pushing, "_send", stopped)
        with pytest.raises(KeyboardInterrupt):
            push(made, BUCKET)
    assert read_card(local_copy(BUCKET, tmp_path / "cache")).digest == before
    assert push(made, BUCKET)
    assert remote_card(BUCKET).digest == read_card(made).digest != before


def test_another_data_set_is_not_replaced_by_chance(made: Path, more: Path, tmp_path: Path) -> None:
    push(made, BUCKET)
    other = import_dataset(more, domain="others", out=tmp_path / "other")
    with pytest.raises(DataError, match=r"holds another data set \(data/part-00000.parquet differs\).*--overwrite"):
        push(tmp_path / "other", BUCKET)
    assert push(tmp_path / "other", BUCKET, overwrite=True)
    assert remote_card(BUCKET).digest == other.digest


def test_a_damaged_file_is_not_sent(made: Path, sent: list[str]) -> None:
    path = made / "data/part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"part-00001.parquet: SHA-256 .* import it again"):
        push(made, BUCKET)
    assert not sent


def test_the_command(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("Sent; use it with", "It is there already"):
        with pytest.raises(SystemExit) as caught:
            cli.main(["data", "push", str(made), BUCKET])
        assert caught.value.code == 0
        assert words in capsys.readouterr().err


def test_a_folder_that_is_no_data_set_and_a_wrong_address_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "push", str(tmp_path / "nothing"), BUCKET])
    assert caught.value.code == 2
    with pytest.raises(DataError, match="nonsense:// is not understood"):
        push(made, "nonsense://shelf/set")


def test_nothing_of_a_data_set_that_was_replaced_is_left(
    made: Path, folder_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that read data/*.parquet would mix the two."""
    resplit(made, seed=3)
    push(made, (tmp_path / "shelf").as_uri())
    assert list((tmp_path / "shelf").glob("splits-*"))
    (tmp_path / "shelf" / "data" / "mine.txt").write_text("not of the card")
    monkeypatch.setattr(shards, "SHARD_MIB", 256)
    import_dataset(folder_set, domain="other", out=tmp_path / "other")
    push(tmp_path / "other", (tmp_path / "shelf").as_uri(), overwrite=True)
    names = {path.name for path in (tmp_path / "shelf" / "data").iterdir()}
    assert names == {"part-00000.parquet", "mine.txt"}
    assert not list((tmp_path / "shelf").glob("splits-*"))
    assert sum(open_dataset(tmp_path / "shelf").card.counts.values()) == 20


# ------------------------------------------------------------------------------------------ importing into a bucket


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An empty bucket of a real S3 server on loopback."""
    with object_store("lab") as store:
        for name, text in store.environment.items():
            monkeypatch.setenv(name, text)
        yield store


def importing(source: Path, url: str, *more: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "import", str(source), "--domain", "squares", "--out", url, *more])
    return int(ended.value.code or 0)


def test_an_import_goes_straight_into_a_bucket(
    lab: ObjectStore, csv_set: Path, folder_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "200")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    url = lab.uri("lab/new/set")
    assert importing(csv_set, url) == 0
    said = capsys.readouterr()
    assert f"Written to {url}" in said.out
    assert f"data={url}" in said.err
    here = import_dataset(csv_set, domain="squares", out=tmp_path / "here")
    there = open_dataset(local_copy(url, tmp_path / "cache"))
    assert (there.card.digest, there.ids("train")) == (here.digest, open_dataset(tmp_path / "here").ids("train"))

    monkeypatch.setattr(manifest, "discover", None)  # nothing is opened before it is known where the set may go
    assert importing(folder_set, url) == 2
    assert "holds a data set already (domain squares, 9 rows" in capsys.readouterr().err
    assert importing(folder_set, lab.uri("nowhere/set"), "--overwrite") == 2
    assert importing(folder_set, "what://lab/set") == 2
    assert "what:// is not understood" in capsys.readouterr().err
    monkeypatch.undo()


def test_another_set_takes_its_place_if_that_is_meant(
    lab: ObjectStore, csv_set: Path, folder_set: Path, tmp_path: Path
) -> None:
    url = lab.uri("lab/set")
    assert importing(csv_set, url) == 0
    assert importing(folder_set, url, "--overwrite") == 0
    assert sum(remote_card(url).counts.values()) == 20
    assert sum(open_dataset(local_copy(url, tmp_path / "cache")).card.counts.values()) == 20


def test_a_refused_import_leaves_the_bucket_empty(lab: ObjectStore, csv_set: Path, tmp_path: Path) -> None:
    (csv_set / "masks" / "val_0.png").unlink()
    assert importing(csv_set, lab.uri("lab/set")) == 2
    with pytest.raises(DataError, match="not an imported data set"):
        remote_card(lab.uri("lab/set"))
