"""`infosam data fetch` against a server on loopback, from the command line to the files."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Server, serving

from infosam import cli
from infosam.data import public_sets as catalogue
from infosam.data.fetch import fetch_set
from infosam.data.manifest import find_pairs
from infosam.data.public_sets import PublicSet, checked_sum, public_set, public_sets
from infosam.errors import DataError, FetchError


@pytest.fixture
def archive(csv_set: Path, tmp_path: Path) -> Path:
    """The nine pairs of `csv_set`, as their authors would publish them."""
    path = tmp_path / "leaf.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for file in sorted(csv_set.rglob("*")):
            opened.write(file, Path("leaf_set") / file.relative_to(csv_set))
    return path


@pytest.fixture
def server(archive: Path) -> Iterator[Server]:
    with serving(archive.read_bytes()) as found:
        yield found


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a real address by accident."""
    real = public_sets()
    fake = {name: entry.model_copy(update={"address": "http://127.0.0.1:9/x.zip"}) for name, entry in real.items()}
    monkeypatch.setattr(catalogue, "public_sets", lambda: fake)
    monkeypatch.setenv("COLUMNS", "300")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "fetch", *arguments])
    return int(caught.value.code or 0)


# ----------------------------------------------------------------------------------------------------- catalogue


def test_the_paper_sets_are_known_and_nothing_is_made_up() -> None:
    assert list(public_sets()) == ["polyp", "leaf", "camo", "isic2017", "road"]
    assert all(entry.sha256 is None and entry.bytes is None for entry in public_sets().values())
    assert all(home.startswith("https://") for entry in public_sets().values() for home in entry.homes)
    with pytest.raises(DataError, match="'cat' is not known; choose one of polyp, leaf"):
        public_set("cat")


def test_a_sum_of_the_user_must_be_one() -> None:
    assert checked_sum(" " + "A" * 64) == "a" * 64
    with pytest.raises(DataError, match="64 hexadecimal digits"):
        checked_sum("abc")


# ------------------------------------------------------------------------------------------------------ fetching


def test_a_set_is_fetched_unpacked_and_ready_to_import(server: Server, archive: Path, tmp_path: Path) -> None:
    found = fetch_set(server.address, tmp_path / "new" / "leaf", sha256=None)
    assert (found.source, found.files, found.notes) == (tmp_path / "new" / "leaf" / "leaf_set", 21, ())
    assert found.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert len(find_pairs(found.source)) == 9
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["leaf"]
    with pytest.raises(DataError, match="already exists, so nothing was fetched"):
        fetch_set(server.address, tmp_path / "new" / "leaf", sha256=None)


def test_a_broken_download_goes_on_with_the_next_call(server: Server, tmp_path: Path) -> None:
    server.etag, server.stops_at = '"one"', 2000
    with pytest.raises(FetchError, match="run the command again to go on"):
        fetch_set(server.address, tmp_path / "new" / "leaf", sha256=None)
    assert not (tmp_path / "new" / "leaf").exists()
    server.stops_at = None
    assert fetch_set(server.address, tmp_path / "new" / "leaf", sha256=None).files == 21
    assert server.asked[-1] == "bytes=2000-"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def test_a_length_that_is_too_short_is_seen_without_a_sum(server: Server, tmp_path: Path) -> None:
    server.promised_more = -100
    with pytest.raises(DataError, match="fetch it again"):
        fetch_set(server.address, tmp_path / "new" / "leaf", sha256=None)
    assert not list((tmp_path / "new").iterdir())
    server.promised_more = 0
    assert fetch_set(server.address, tmp_path / "new" / "leaf", sha256=None).files == 21


def test_another_file_is_refused(server: Server, archive: Path, tmp_path: Path) -> None:
    for source in (server.address, str(archive)):
        with pytest.raises(FetchError, match=f"expected {'0' * 64}"):
            fetch_set(source, tmp_path / "new" / "leaf", sha256="0" * 64)
    assert archive.exists()
    for content, words in ((b"please log in", "neither a zip nor a tar"), (b"<html>please log in", "is a web page")):
        server.content = content
        with pytest.raises((DataError, FetchError), match=words):
            fetch_set(server.address, tmp_path / "new" / "leaf", sha256=None)
    assert not list((tmp_path / "new").iterdir())


def test_a_file_at_hand_stays(archive: Path, tmp_path: Path) -> None:
    assert fetch_set(str(archive), tmp_path / "leaf", sha256=None).files == 21
    assert archive.exists()
    with pytest.raises(FetchError, match=r"nowhere.zip: cannot be read .*correct --from"):
        fetch_set(str(tmp_path / "nowhere.zip"), tmp_path / "other", sha256=None)


def test_a_hostile_archive_leaves_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as opened:
        opened.writestr("fine.txt", "x")
        opened.writestr("../evil.txt", "x")
    with pytest.raises(DataError, match=r"'\.\./evil.txt' leads out"):
        fetch_set(str(tmp_path / "evil.zip"), tmp_path / "new" / "set", sha256=None)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["evil.zip"]


def test_other_lists_of_tests_are_named(csv_set: Path, tmp_path: Path) -> None:
    (csv_set / "test.csv").rename(csv_set / "test_Kvasir.csv")
    with zipfile.ZipFile(tmp_path / "polyp.zip", "w") as opened:
        for file in csv_set.rglob("*"):
            opened.write(file, file.relative_to(csv_set))
    (note,) = fetch_set(str(tmp_path / "polyp.zip"), tmp_path / "polyp", sha256=None).notes
    assert "test_Kvasir.csv: copy the one you want" in note


def test_a_layout_nobody_understands_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as opened:
        opened.writestr("notes.txt", "x")
    (note,) = fetch_set(str(tmp_path / "odd.zip"), tmp_path / "odd", sha256=None).notes
    assert "not one that the import understands" in note


# ------------------------------------------------------------------------------------------------------- command


def test_terms_are_shown_and_nothing_happens_without_consent(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("polyp", "--mirror", server.address, "--out", str(tmp_path / "new"))
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    for word in (server.address, "none is published", "not published", "no commercial use", "simula.no", "add --yes"):
        assert word in said
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert run(*arguments) == 2
    assert "nothing was fetched" in capsys.readouterr().err
    assert server.asked == []
    assert not (tmp_path / "new").exists()


def test_a_mirror_is_used_and_the_import_command_is_said(
    server: Server, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = server.address.rpartition("/")[0] + "/"
    assert run("leaf", "--mirror", folder, "--out", str(tmp_path / "new"), "--yes") == 0
    said = capsys.readouterr()
    assert f"{folder}x.zip" in said.err
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in said.out
    assert f"infosam data import {tmp_path / 'new' / 'leaf_set'} --domain leaf --out data/leaf" in said.out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--mirror", "ftp://x/y.zip"), "not an http"),
        (("--mirror", "http://x/y.zip", "--from", "y.zip"), "give one of them"),
        (("--sha256", "12"), "64 hexadecimal digits"),
        (("--from", "missing.zip"), "correct --from"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("leaf", "--yes", "--out", str(tmp_path / "new"), *options) == 2
    assert reason in capsys.readouterr().err


def test_a_set_without_an_address_names_its_home(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry: PublicSet = public_sets()["road"].model_copy(update={"address": None})
    monkeypatch.setattr(catalogue, "public_sets", lambda: {"road": entry})
    assert run("road", "--yes") == 2
    assert "get it from https://www.cs.toronto.edu" in capsys.readouterr().err
