"""A server with one file that breaks off, cannot resume, lies about the length, or never ends."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Server(ThreadingHTTPServer):
    """Behaves as badly as it is told, and keeps the ranges that were asked for."""

    cut_after: int | None = None  # bytes of each answer, then the connection ends
    stops_at: int | None = None  # byte of the content that no answer gets beyond
    resumes = True
    promised_more = 0  # bytes that Content-Length claims beyond the content
    endless = False
    status: int | None = None
    busy = 0  # answers that are 503 before the others
    stalls_s = 0.0  # before its first answer
    kind = "application/octet-stream"
    points_to: str | None = None  # another address, for every name but /moved
    etag: str | None = None  # honoured in If-Range

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.agents: list[str] = []
        self.content = content

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range"))
        start = 0
        same = self.headers.get("If-Range") in (None, server.etag)
        if server.resumes and same and (match := re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            start = int(match[1])
        server.agents.append(self.headers.get("User-Agent", ""))
        server.busy -= 1
        time.sleep(server.stalls_s if len(server.asked) == 1 else 0)
        if server.status or server.busy >= 0:
            self.send_error(server.status or 503)
            return
        if server.points_to and not self.path.endswith("/moved"):
            self.send_response(302)
            self.send_header("Location", server.points_to)
            self.end_headers()
            return
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.kind)
        if not server.endless:
            self.send_header("Content-Length", str(len(body) + server.promised_more))
        self.end_headers()
        try:
            self.wfile.write(server.content[start : server.stops_at][: server.cut_after])
            while server.endless:
                self.wfile.write(body)
        except OSError:
            return  # the other side has heard enough

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """A server on loopback that has one file, under every name."""
    with Server(content) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
