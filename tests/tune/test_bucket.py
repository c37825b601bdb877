"""What lies in an object store, from a real S3 server on loopback that is slow and fails: files and data sets that a
machine fetches once, and checkpoints that outlive the machine they were made on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore, object_store

from infosam.data.card import read_card
from infosam.errors import ConfigError, FetchError
from tune.bucket import TRIES, Bucket
from tune.config import ResourceConfig
from tune.fetched import fetch_all
from tune.mirror import LIST_NAME, Overtaken, pull, push


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectStore]:
    with object_store("lab") as store:
        yield store


@pytest.fixture
def store(running: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    for name, text in running.environment.items():
        monkeypatch.setenv(name, text)
    running.trouble.counts.clear()
    yield running
    running.trouble.delay_s, running.trouble.failures = 0.0, 0


def bucket(store: ObjectStore, path: str = "lab/files") -> Bucket:
    return Bucket(store.uri(path), pause=lambda seconds: None)


def upload(folder: Path, place: Bucket) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            place.send(path, str(path.relative_to(folder)))


# ------------------------------------------------------------------------------------------------ what is in a bucket


def test_a_small_file_takes_one_request(store: ObjectStore) -> None:
    place = bucket(store)
    store.trouble.counts.clear()
    place.write("small", b"content")
    assert dict(store.trouble.counts) == {"PUT": 1}


def test_folders_are_what_has_files_below(store: ObjectStore) -> None:
    place = bucket(store, "lab/folders")
    assert place.folders() == []
    for name in ("two/a", "one/deep/b", "c"):
        place.write(name, b"content")
    store.trouble.failures = 2
    assert place.folders() == ["one", "two"]


def test_files_come_back_as_they_were(store: ObjectStore, tmp_path: Path) -> None:
    place = bucket(store)
    place.write("a/b.json", b"content")
    assert place.read("a/b.json") == b"content"
    assert place.exists("a/b.json")
    assert place.fetch("a/b.json", tmp_path / "b") == hashlib.sha256(b"content").hexdigest()
    place.remove("a/b.json")
    place.remove("a/b.json")
    assert place.read("a/b.json") is None
    assert not place.exists("a/b.json")


def test_errors_and_slow_answers_are_waited_out(store: ObjectStore, tmp_path: Path) -> None:
    place = bucket(store)
    place.write("x", b"1" * 100_000)
    store.trouble.delay_s, store.trouble.failures = 0.05, 9
    assert place.fetch("x", tmp_path / "x") == hashlib.sha256(b"1" * 100_000).hexdigest()
    store.trouble.failures = 9
    place.write("x", b"2")
    assert place.read("x") == b"2"
    assert not store.trouble.failures


def test_one_that_never_answers_well_is_given_up(store: ObjectStore) -> None:
    waits: list[float] = []
    place = Bucket(store.uri("lab/files"), pause=waits.append)
    store.trouble.failures = 10_000
    with pytest.raises(OSError, match=r"500|Internal"):
        place.read("x")
    assert len(waits) == TRIES - 1
    assert waits == sorted(waits)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="s3://, gs://"):
        Bucket("ftp://somewhere/else")


# ------------------------------------------------------------------------------------- what each machine fetches once


def test_a_file_is_fetched_once_however_many_want_it(store: ObjectStore, tmp_path: Path) -> None:
    weights = b"w" * 300_000
    place = bucket(store, "lab/weights")
    place.write("nano.pth", weights)
    place.write("nano.pth.sha256", f"{hashlib.sha256(weights).hexdigest()}  nano.pth\n".encode())
    target = tmp_path / "here" / "nano.pth"
    wanted = {str(target): store.uri("lab/weights/nano.pth")}
    store.trouble.delay_s, store.trouble.failures = 0.02, 3
    threads = [threading.Thread(target=fetch_all, args=(wanted,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == weights
    assert store.trouble.counts["GET"] <= 3  # its sum, and the file in one or two parts
    assert [path.name for path in target.parent.iterdir() if not path.name.startswith(".")] == ["nano.pth"]
    store.trouble.counts.clear()
    fetch_all(wanted)
    assert not store.trouble.counts


@pytest.mark.parametrize(
    ("said", "words"),
    [(b"0" * 64 + b"  other.pth\n", "SHA-256"), (None, "no such file")],
    ids=["another file", "no file"],
)
def test_nothing_is_left_of_a_file_that_is_not_right(
    store: ObjectStore, tmp_path: Path, said: bytes | None, words: str
) -> None:
    place = bucket(store, "lab/wrong")
    name = "other.pth" if said else "absent.pth"
    if said:
        place.write(name, b"what it is")
        place.write(f"{name}.sha256", said)
    with pytest.raises(FetchError, match=words):
        fetch_all({str(tmp_path / name): store.uri(f"lab/wrong/{name}")})
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


def test_a_data_set_is_fetched_whole_and_checked(store: ObjectStore, dataset: Path, tmp_path: Path) -> None:
    upload(dataset, bucket(store, "lab/disc"))
    store.trouble.delay_s = 0.02
    there = tmp_path / "there"
    fetch_all({str(there): store.uri("lab/disc")})
    assert read_card(there).digest == read_card(dataset).digest
    damaged = next(iter(read_card(dataset).shards)).name
    bucket(store, "lab/disc").write(damaged, b"damaged")
    with pytest.raises(Exception, match="SHA-256"):
        fetch_all({str(tmp_path / "elsewhere" / "there"): store.uri("lab/disc")})
    assert not (tmp_path / "elsewhere" / "there").exists()


@pytest.mark.parametrize("settings", [{"fetch": {"/x": "y"}}, {"mirror": "runs"}])
def test_addresses_are_checked_with_the_file(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="address"):
        ResourceConfig.model_validate(settings)


# --------------------------------------------------------------------------------- checkpoints of a trial in a bucket


def checkpoint(folder: Path, epoch: int) -> None:
    """What a training leaves after an epoch, and what it is still writing."""
    for name, text in {f"epoch-{epoch:04d}/state.json": str(epoch), "best/weights": "best"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "epoch-9999.part").mkdir(exist_ok=True)
    (folder / "epoch-9999.part" / "half").write_text("half")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_trial_goes_on_where_another_machine_left_it(store: ObjectStore, tmp_path: Path) -> None:
    place = bucket(store, "lab/runs/t0")
    first, second = tmp_path / "first" / "checkpoints", tmp_path / "second" / "checkpoints"
    checkpoint(first, 1)
    store.trouble.delay_s, store.trouble.failures = 0.01, 4
    push(first, place, 1)
    (first / "epoch-0001" / "state.json").unlink()
    checkpoint(first, 2)
    push(first, place, 2)
    checkpoint(second, 1)  # of an earlier time on this machine
    pull(second, place)
    assert contents(second) == {"epoch-0002/state.json": "2", "best/weights": "best"}
    store.trouble.counts.clear()
    pull(second, place)
    assert store.trouble.counts["GET"] == 1  # the list only
    pull(tmp_path / "none", bucket(store, "lab/runs/t1"))
    assert not (tmp_path / "none").exists()


def test_a_process_that_comes_back_late_sets_nothing_back(store: ObjectStore, tmp_path: Path) -> None:
    place = bucket(store, "lab/runs/t2")
    for name, epoch in (("quick", 3), ("late", 2)):
        checkpoint(tmp_path / name, epoch)
    push(tmp_path / "quick", place, 3)
    with pytest.raises(Overtaken, match="epoch 3"):
        push(tmp_path / "late", place, 2)
    pull(tmp_path / "next" / "checkpoints", place)
    assert (tmp_path / "next" / "checkpoints" / "epoch-0003").is_dir()


def test_a_damaged_checkpoint_is_not_gone_on_from(store: ObjectStore, tmp_path: Path) -> None:
    place = bucket(store, "lab/runs/t3")
    checkpoint(tmp_path / "one", 1)
    push(tmp_path / "one", place, 1)
    place.write(hashlib.sha256(b"best").hexdigest(), b"worse")
    with pytest.raises(FetchError, match="damaged"):
        pull(tmp_path / "two" / "checkpoints", place)
    assert not (tmp_path / "two" / "checkpoints").exists()


def test_a_list_does_not_lead_out_of_the_folder(store: ObjectStore, tmp_path: Path) -> None:
    place = bucket(store, "lab/runs/t4")
    place.write(LIST_NAME, b'{"epoch": 1, "files": {"../../outside": "abc"}}')
    with pytest.raises(FetchError, match="no file of a trial"):
        pull(tmp_path / "two" / "checkpoints", place)
