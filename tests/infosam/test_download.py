"""Downloads from a server that breaks off, cannot resume, lies about the length, or serves another file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from infosam import cli, weights_commands
from infosam.download import TRIES, fetch_file
from infosam.errors import WeightsError
from infosam.sam.architectures import ARCHITECTURES

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Behaves as badly as it is told, and keeps the ranges that were asked for."""

    content = CONTENT
    cut_after: int | None = None  # bytes of each answer, then the connection ends
    resumes = True
    promised_more = 0  # bytes that Content-Length claims beyond the content
    endless = False
    status: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range"))
        start = 0
        if server.resumes and (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            start = int(match[1])
        if server.status or start >= len(server.content):
            self.send_error(server.status or 416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if not server.endless:
            self.send_header("Content-Length", str(len(body) + server.promised_more))
        self.end_headers()
        try:
            self.wfile.write(body[: server.cut_after])
            while server.endless:
                self.wfile.write(body)
        except OSError:
            return  # the other side has heard enough

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
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
    with pytest.raises(WeightsError, match="run the command again to go on"):
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
    with pytest.raises(WeightsError, match="is not the expected file"):
        fetched(server.address, out)
    assert list(out.parent.iterdir()) == []


def test_another_file_is_refused_and_deleted(server: Server, out: Path) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(WeightsError, match=rf"expected {SHA256}.*another mirror"):
        fetched(server.address, out)
    assert list(out.parent.iterdir()) == []


def test_a_part_of_another_file_does_not_stay(server: Server, out: Path) -> None:
    out.parent.mkdir()
    out.with_name("file.pth.partial").write_bytes(b"x" * (len(CONTENT) + 5))
    with pytest.raises(WeightsError, match="is not the expected file"):
        fetched(server.address, out)
    assert fetched(server.address, out)


def test_a_stream_without_end_is_ended(server: Server, out: Path) -> None:
    server.endless = True
    with pytest.raises(WeightsError, match="sends more than 3,000,000 bytes"):
        fetched(server.address, out, max_bytes=3_000_000)
    assert not out.exists()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_of_the_server_is_told(server: Server, out: Path, status: int) -> None:
    server.status = status
    with pytest.raises(WeightsError, match=f"says {status} .*another mirror"):
        fetched(server.address, out)
    assert len(server.asked) == 1


def test_nobody_there(out: Path) -> None:
    with serving() as gone:
        address = gone.address
    with pytest.raises(WeightsError, match="cannot be fetched"):
        fetched(address, out)


def test_a_file_at_hand_is_copied(tmp_path: Path, out: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    assert fetched(str(tmp_path / "mine.pth"), out)
    assert out.read_bytes() == CONTENT
    with pytest.raises(WeightsError, match="no such file, and no http"):
        fetched("ftp://example.org/x", tmp_path / "other.pth")


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    with pytest.raises(WeightsError, match="already exists and is not this file"):
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
