"""Downloads from a server that breaks off, cannot resume, lies about the length, or serves another file."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from collections.abc import Iterator
from http.client import HTTPMessage
from pathlib import Path
from types import SimpleNamespace

import pytest
from file_server import Server, serving

from infosam import cli, weights_commands
from infosam.download import TRIES, _Redirects, fetch_file
from infosam.errors import FetchError
from infosam.sam.architectures import ARCHITECTURES

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(CONTENT) as found:
        yield found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "file.pth"


def fetched(source: str, out: Path, **options: object) -> bool:
    return fetch_file(source, out, **{"sha256": SHA256, "max_bytes": 1 << 24, "pause_s": 0, **options})  # type: ignore[arg-type]


def test_a_file_is_fetched_once(server: Server, out: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    assert fetched(server.address, out, progress=lambda done, total: seen.append((done, total)))
    assert out.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not fetched(server.address, out)
    assert len(server.asked) == 1
    assert [path.name for path in out.parent.iterdir()] == ["file.pth"]


def test_a_connection_that_breaks_off_is_taken_up_again(server: Server, out: Path) -> None:
    server.cut_after = 300_000
    assert fetched(server.address, out)
    assert out.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_server_that_cannot_resume_sends_all_again(server: Server, out: Path) -> None:
    server.resumes = False
    out.parent.mkdir()
    out.with_name("file.pth.partial").write_bytes(CONTENT[:1000])
    assert fetched(server.address, out)
    assert server.asked == ["bytes=1000-"]
    assert out.read_bytes() == CONTENT


def test_a_server_that_always_breaks_off_is_given_up_and_the_part_is_kept(server: Server, out: Path) -> None:
    server.cut_after = 0
    out.parent.mkdir()
    out.with_name("file.pth.partial").write_bytes(CONTENT[:1000])
    with pytest.raises(FetchError, match="run the command again to go on"):
        fetched(server.address, out)
    assert len(server.asked) == TRIES
    assert not out.exists()
    server.cut_after = None
    assert fetched(server.address, out)
    assert server.asked[-1] == "bytes=1000-"


def test_a_length_that_is_too_long_ends_well_if_the_sum_is_right(server: Server, out: Path) -> None:
    server.promised_more = 100
    assert fetched(server.address, out)
    assert out.read_bytes() == CONTENT


def test_a_length_that_is_too_short_is_another_file(server: Server, out: Path) -> None:
    server.promised_more = -100
    with pytest.raises(FetchError, match="is not the expected file"):
        fetched(server.address, out)
    assert list(out.parent.iterdir()) == []


def test_another_file_is_refused_and_deleted(server: Server, out: Path) -> None:
    server.content = b"please log in"
    with pytest.raises(FetchError, match=rf"expected {SHA256}.*another mirror"):
        fetched(server.address, out)
    assert list(out.parent.iterdir()) == []


def test_a_part_of_another_file_does_not_stay(server: Server, out: Path) -> None:
    out.parent.mkdir()
    out.with_name("file.pth.partial").write_bytes(b"x" * (len(CONTENT) + 5))
    with pytest.raises(FetchError, match="is not the expected file"):
        fetched(server.address, out)
    assert fetched(server.address, out)


def test_a_stream_without_end_is_ended(server: Server, out: Path) -> None:
    server.endless = True
    with pytest.raises(FetchError, match="sends more than 3,000,000 bytes"):
        fetched(server.address, out, max_bytes=3_000_000)
    assert not out.exists()


def test_what_never_ends_does_not_stay(server: Server, out: Path) -> None:
    server.endless = True
    with pytest.raises(FetchError, match="sends more than"):
        fetched(server.address, out, max_bytes=3_000_000)
    server.endless = False
    assert fetched(server.address, out)


# ------------------------------------------------------------------------------------------------ no sum is known


def test_without_a_sum_it_goes_on_only_with_the_same_file(server: Server, out: Path) -> None:
    server.cut_after, server.etag = 300_000, '"one"'
    assert fetched(server.address, out, sha256=None)
    assert out.read_bytes() == CONTENT
    assert server.asked[1] == "bytes=300000-"
    assert [path.name for path in out.parent.iterdir()] == ["file.pth"]


def test_a_file_that_changed_meanwhile_is_sent_anew(server: Server, out: Path) -> None:
    server.stops_at, server.etag = 300_000, '"one"'
    server.content = b"x" * 500_000
    with pytest.raises(FetchError, match="cannot be fetched"):
        fetched(server.address, out, sha256=None)
    assert out.with_name("file.pth.partial").read_bytes() == b"x" * 300_000
    server.stops_at, server.etag, server.content = None, '"two"', CONTENT
    assert fetched(server.address, out, sha256=None)
    assert out.read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_without_a_sum_and_a_word_of_the_server_it_starts_anew(server: Server, out: Path, etag: str | None) -> None:
    server.etag = etag
    out.parent.mkdir()
    out.with_name("file.pth.partial").write_bytes(b"of another file")
    assert fetched(server.address, out, sha256=None)
    assert server.asked == [None]
    assert out.read_bytes() == CONTENT


def test_a_whole_part_without_a_sum_is_taken_as_it_is(server: Server, out: Path) -> None:
    server.etag, server.promised_more = '"one"', 5
    assert fetched(server.address, out, sha256=None)
    assert out.read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={len(CONTENT)}-"


def test_without_a_sum_nothing_is_taken_for_the_right_file(server: Server, out: Path) -> None:
    assert fetched(server.address, out, sha256=None)
    with pytest.raises(FetchError, match="no sum is known"):
        fetched(server.address, out, sha256=None)


@pytest.mark.parametrize("status", [403, 404, 501])
def test_a_refusal_of_the_server_is_told(server: Server, out: Path, status: int) -> None:
    server.status = status
    with pytest.raises(FetchError, match=f"says {status} .*another mirror"):
        fetched(server.address, out)
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again_and_given_up_in_the_end(server: Server, out: Path) -> None:
    server.busy = TRIES - 1
    assert fetched(server.address, out)
    assert len(server.asked) == TRIES
    assert all(agent.startswith("infosam/") for agent in server.agents)  # some refuse Python's own
    server.status = 503
    with pytest.raises(FetchError, match=r"says 503 .*run the command again"):
        fetched(server.address, out.with_name("other"))
    assert [path.name for path in out.parent.iterdir()] == ["file.pth"]


def test_a_server_that_falls_silent_is_asked_again(server: Server, out: Path) -> None:
    server.stalls_s = 0.5
    assert fetched(server.address, out, timeout_s=0.2)
    assert server.asked == [None, None]


@pytest.mark.parametrize("sha256", [SHA256, None])
@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>virus scan", b"\xef\xbb\xbf\n<html lang=en>"])
def test_a_page_instead_of_the_file_is_told(server: Server, out: Path, sha256: str | None, page: bytes) -> None:
    server.content, server.kind = page, "text/html; charset=utf-8"
    with pytest.raises(FetchError, match=r"is a web page.*Google Drive.*--from"):
        fetched(server.address, out, sha256=sha256)
    assert list(out.parent.iterdir()) == []


def test_a_server_may_point_elsewhere_but_not_to_where_it_is_unsafe(server: Server, out: Path) -> None:
    server.points_to = server.address + "/moved"
    server.cut_after = 600_000
    assert fetched(server.address, out)
    server.points_to = "ftp://127.0.0.1/file.pth"
    with pytest.raises(FetchError, match=r"points to ftp:.*not safe"):
        fetched(server.address, out.with_name("other"))
    asked = urllib.request.Request("https://example.org/a")
    with pytest.raises(FetchError, match=r"points to http:.*not safe"):
        _Redirects().redirect_request(asked, io.BytesIO(), 302, "", HTTPMessage(), "http://example.org/a")


def test_two_at_once_do_not_write_into_one_file(server: Server, out: Path) -> None:
    refused: list[str] = []

    def again(*_: object) -> None:
        if not refused:
            with pytest.raises(FetchError, match="another command is fetching") as caught:
                fetched(server.address, out)
            refused.append(str(caught.value))

    assert fetched(server.address, out, progress=again)
    assert refused
    assert out.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:port/x", "http://127.0.0.1/a b", "http://a..b/x", "http://127.0.0.1/\u00e4"]
)
def test_what_is_no_address_is_told_at_once(out: Path, address: str) -> None:
    with pytest.raises(FetchError, match="is no address"):
        fetched(address, out, pause_s=60)


def test_a_disk_without_room_is_told_before_the_download(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(FetchError, match="1,048,576 bytes are to come, and its disk has 1,000 free"):
        fetched(server.address, out)


def test_a_proxy_of_the_environment_is_used(server: Server, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address.rpartition("/")[0])
    monkeypatch.delenv("no_proxy", raising=False)
    assert fetched("http://nowhere.invalid/file.pth", out)


def test_nobody_there(out: Path) -> None:
    with serving(CONTENT) as gone:
        address = gone.address
    with pytest.raises(FetchError, match="cannot be fetched"):
        fetched(address, out)


def test_a_file_at_hand_is_copied(tmp_path: Path, out: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    assert fetched(str(tmp_path / "mine.pth"), out)
    assert out.read_bytes() == CONTENT
    with pytest.raises(FetchError, match="no such file, and no http"):
        fetched("ftp://example.org/x", tmp_path / "other.pth")


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    with pytest.raises(FetchError, match="already exists and is not this file"):
        fetched("http://127.0.0.1:9/x", thesis)
    assert thesis.read_text() == "years of work"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["weights", "fetch", *arguments])
    return int(caught.value.code or 0)


def test_the_command_shows_terms_and_asks(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run("vit_b", "--from", server.address, "--out", str(tmp_path / "b.pth")) == 2
    assert "standard input is no terminal" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert run("vit_b", "--from", server.address, "--out", str(tmp_path / "b.pth")) == 2
    said = capsys.readouterr().err
    for word in (server.address, "ec2df62732614e57", "Apache-2.0", "agree to the licence"):
        assert word in said
    assert server.asked == []
    assert run("vit_b", "--from", server.address, "--out", str(tmp_path / "b.pth"), "--yes") == 2
    assert "is not the expected file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run("vit_x") == 2
    assert "vit_b, vit_l, vit_h" in capsys.readouterr().err


def test_every_file_has_a_published_sum() -> None:
    assert all(ARCHITECTURES[name].sha256 for name in weights_commands.FILES)
