from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from infosam import cli
from infosam.data import remote
from infosam.data.card import read_card
from infosam.data.growing import resplit
from infosam.data.remote import WITH_SECRET, local_copy
from infosam.data.store import open_dataset
from infosam.errors import DataError

BUCKET = "memory://bucket/set"


@pytest.fixture
def stored(sharded_set: Path) -> Iterator[Path]:
    """A data set of three files that also lies in the bucket."""
    memory: Any = fsspec.filesystem("memory")
    memory.put(str(sharded_set), "/bucket/set", recursive=True)
    yield sharded_set
    memory.rm("/bucket", recursive=True)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are copied."""
    names: list[str] = []
    real = remote._copy

    def counted(system: Any, path: str, out: Path) -> str:
        names.append(out.name)
        return real(system, path, out)

    monkeypatch.setattr(remote, "_copy", counted)
    return names


@pytest.mark.parametrize("where", ["bucket", "file", "path"])
def test_a_data_set_is_copied_once(stored: Path, tmp_path: Path, copied: list[str], where: str) -> None:
    url = {"bucket": BUCKET, "file": stored.as_uri(), "path": f"{stored}/"}[where]
    seen: list[tuple[int, int | None]] = []
    folder = local_copy(url, tmp_path / "cache", lambda done, total: seen.append((done, total)))
    assert read_card(folder).digest == read_card(stored).digest
    assert open_dataset(folder).read("val", 1).id == "val_1"
    assert seen[-1][0] == seen[-1][1]
    assert len(copied) == 3
    assert local_copy(url, tmp_path / "cache") == folder
    assert len(copied) == 3
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_a_changed_data_set_gets_another_folder(stored: Path, tmp_path: Path) -> None:
    first = local_copy(str(stored), tmp_path / "cache")
    resplit(stored, seed=3)
    second = local_copy(str(stored), tmp_path / "cache")
    assert first != second
    assert open_dataset(second).ids("train") == open_dataset(stored).ids("train")
    assert open_dataset(first).rows("train") == 4


def test_a_copy_that_was_stopped_goes_on(
    stored: Path, tmp_path: Path, copied: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = remote._copy

    def stopped(system: Any, path: str, out: Path) -> str:
        if path.endswith("00001.parquet"):
            raise KeyboardInterrupt
        return counted(system, path, out)

    with monkeypatch.context() as patch:
        patch.setattr(remote, "_copy", stopped)
        with pytest.raises(KeyboardInterrupt):
            local_copy(BUCKET, tmp_path / "cache")
    assert copied == ["part-00000.parquet"]
    local_copy(BUCKET, tmp_path / "cache")
    assert copied == [f"part-0000{number}.parquet" for number in range(3)]


def test_a_damaged_file_is_refused(stored: Path, tmp_path: Path) -> None:
    path = stored / "data/part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"part-00001.parquet: SHA-256 .* its card says"):
        local_copy(str(stored), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory://bucket/nothing", "no dataset.json in it"),
        ("nonsense://bucket/set", "nonsense:// is not understood"),
        ("/nowhere/at/all", "no dataset.json in it"),
    ],
)
def test_wrong_addresses_are_told(url: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason):
        local_copy(url, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("secret", ["AKIA:s3cr3t@lab/set", "AKIA:s3/cr3t@lab/set", ":s3cr3t@lab/set?scheme=http"])
def test_a_secret_in_an_address_is_refused_and_not_shown(secret: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"s3://\.\.\.@lab/set.*: leave the secret out.*AWS_SECRET") as caught:
        local_copy(f"s3://{secret}", tmp_path / "cache")
    assert "cr3t" not in str(caught.value)


def test_a_port_and_a_user_are_no_secret() -> None:
    assert not any(
        map(WITH_SECRET.match, ("hdfs://name:9000/a@b", "abfs://box@account/set", "file:///a:b@c", "s3://a/b:c@d"))
    )


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(DataError, match=r"abfs:// is not installed .*adlfs.*install it with pip"):
        local_copy("abfs://box/set", tmp_path / "cache")


def test_the_command_prints_the_folder_and_nothing_else(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "pull", BUCKET, "--cache", str(tmp_path / "cache")])
    assert caught.value.code == 0
    assert Path(capsys.readouterr().out.strip()) == local_copy(BUCKET, tmp_path / "cache")
