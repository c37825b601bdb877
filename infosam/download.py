"""Fetches one file: resumed where it broke off, and in place only when it is the right one, if its sum is known."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import urlsplit

from infosam import __version__
from infosam.errors import FetchError

CHUNK_BYTES = 1 << 20
TRIES = 5  # without a single new byte; as long as some arrive, it goes on
PAUSE_S = 1.0  # before the second try in vain; twice as long before each further one
TIMEOUT_S = 60.0
PASSING = (408, 425, 429, 500, 502, 503, 504)  # what servers say when they are busy: worth another try
PAGE_MARKS = (b"<!doctype html", b"<html")
Progress = Callable[[int, int | None], None]  # bytes there, bytes in all if the server says


def fetch_file(
    source: str,
    out: Path,
    *,
    sha256: str | None,
    max_bytes: int,
    progress: Progress | None = None,
    timeout_s: float = TIMEOUT_S,
    pause_s: float = PAUSE_S,
) -> bool:
    """Brings `source`, an http(s) address or a local path, to `out`; False if `out` already is the right file.

    What has arrived is kept in `out` + ".partial", so that the next call goes on from there, unless its sum is wrong.
    Without a sum it goes on only if the server vouches that its file is still the same (If-Range), and whatever is at
    `out` is refused. `max_bytes` ends a stream that does not. Raises FetchError if `out` is another file, another
    process fetches it, or the source cannot be reached, breaks off again and again, is a web page, or not the file that
    the sum belongs to."""
    if out.exists():
        if sha256 and out.is_file() and sha256_of_file(out) == sha256:
            return False
        reason = "is not this file (SHA-256 differs)" if sha256 else "no sum is known to compare it with"
        raise FetchError(f"{out}: already exists and {reason}; move it or choose another --out")
    partial = _Partial(out.with_name(out.name + ".partial"), sum_known=sha256 is not None)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(partial.path):
            if is_address(source):
                _download(source, partial, max_bytes, progress, timeout_s, pause_s)
            else:
                _copy(Path(source), partial.path)
            _check(source, partial, sha256)
            os.replace(partial.path, out)
            partial.forget()
    except OSError as error:
        raise FetchError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
    return True


def is_address(source: str) -> bool:
    """Whether it is to be fetched over http(s), not a path."""
    return urlsplit(source).scheme in ("http", "https")


def sha256_of_file(path: Path) -> str:
    """Of its content, as 64 hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process writes to a file; the system ends the lock with its process. Raises FetchError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"{path}: another command is fetching this file; wait for it, or choose another --out"
            raise FetchError(text) from None
        try:
            yield
        finally:
            if path.exists() and not path.stat().st_size:
                path.unlink()
    finally:
        os.close(handle)


def _check(source: str, partial: _Partial, sha256: str | None) -> None:
    """Raises FetchError unless the file that arrived is the right one, as far as that can be told."""
    found = sha256_of_file(partial.path)
    if found == sha256:
        return
    with partial.path.open("rb") as file:
        is_page = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(PAGE_MARKS)
    if not sha256 and not is_page:
        return
    partial.forget()
    if is_page:
        raise FetchError(
            f"{source}: is a web page, not the file; perhaps it wants a click first, as Google Drive does for large "
            "files: open it in a browser, and give the file that you get there with --from"
        )
    raise FetchError(
        f"{source}: is not the expected file: SHA-256 {found}, expected {sha256}; it was deleted again. "
        "Use another mirror"
    )


@dataclass(frozen=True)
class _Partial:
    """What has arrived so far, and beside it the server's word for which file that is a part of."""

    path: Path
    sum_known: bool  # then the sum decides in the end, and going on needs no word of the server

    @property
    def _word(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def resume(self, address: str) -> dict[str, str]:
        """Headers that ask for the rest; none if all must be sent."""
        try:
            kept = json.loads(self._word.read_text(encoding="utf-8"))
            validator = str(kept["validator"]) if kept["address"] == address else None
        except (OSError, ValueError, KeyError, TypeError):
            validator = None
        if not self.size or not (validator or self.sum_known):
            return {}
        return {"Range": f"bytes={self.size}-", **({"If-Range": validator} if validator else {})}

    def remember(self, address: str, answer: http.client.HTTPResponse) -> None:
        """Keeps what the server calls its file; a weak ETag does not promise equal bytes."""
        etag = answer.headers.get("ETag")
        validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
        if validator:
            self._word.write_text(json.dumps({"address": address, "validator": validator}), encoding="utf-8")
        else:
            self._word.unlink(missing_ok=True)

    def restart(self) -> None:
        """Keeps the file, which is locked, and nothing in it."""
        os.truncate(self.path, 0)
        self._word.unlink(missing_ok=True)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._word.unlink(missing_ok=True)


def _copy(source: Path, partial: Path) -> None:
    if not source.is_file():
        raise FetchError(f"{source}: no such file, and no http(s) address; correct --from")
    try:
        with source.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise FetchError(f"{source}: cannot be read ({error.strerror}); correct --from or its rights") from error
    shutil.copyfile(source, partial)


def _download(
    address: str, partial: _Partial, max_bytes: int, progress: Progress | None, timeout_s: float, pause_s: float
) -> None:
    """Until the server says that all is there; a broken connection is taken up again where it ended."""
    tries = 0
    while True:
        before = partial.size
        try:
            _continue(address, partial, max_bytes, progress, timeout_s)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and before:
                if partial.sum_known or error.headers.get("Content-Range") == f"bytes */{before}":
                    return  # all of it is there already; the sum decides if there is one
                partial.restart()
                continue
            reason = f"the server says {error.code} {error.reason}"
            if error.code not in PASSING:
                raise FetchError(f"{address}: {reason}; use another mirror") from None
        except (http.client.InvalidURL, UnicodeError) as error:
            raise FetchError(f"{address}: is no address ({error}); correct it, a space is written %20") from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", None) or error)
        tries = 0 if partial.size > before else tries + 1
        if tries == TRIES:
            raise FetchError(
                f"{address}: cannot be fetched ({reason}); run the command again to go on, or use another mirror"
            )
        if tries:
            time.sleep(pause_s * 2 ** (tries - 1))


def _continue(address: str, partial: _Partial, max_bytes: int, progress: Progress | None, timeout_s: float) -> None:
    """One connection. Raises HTTPException or OSError if it ends before the length that the server promised."""
    start = partial.size
    headers = {"User-Agent": f"infosam/{__version__}", **partial.resume(address)}
    opener = urllib.request.build_opener(_Redirects)
    with opener.open(urllib.request.Request(address, headers=headers), timeout=timeout_s) as answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        if not resumed:
            start = 0  # a server that cannot go on, or has another file by now, sends everything
            partial.remember(address, answer)
        elif not answer.headers.get("Content-Range", f"bytes {start}-").startswith(f"bytes {start}-"):
            raise FetchError(f"{address}: the server sends another part than asked for; use another mirror")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        _check_room(partial.path.parent, (total or start) - start)
        with partial.path.open("ab" if resumed else "wb") as file:
            for done in _poured(answer, file, start):
                if done > max_bytes:
                    partial.forget()
                    reason = f"sends more than {max_bytes:,} bytes, so it is another file"
                    raise FetchError(f"{address}: {reason}; use another mirror")
                if progress:
                    progress(done, total)
    if total is not None and partial.size < total:
        raise http.client.IncompleteRead(b"", total - partial.size)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes where a server points to, never from https to where anybody on the way could change the file."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before, after) == ("https", "http"):
            fp.close()
            raise FetchError(f"{req.full_url}: points to {newurl}, which is not safe; use another mirror")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_room(folder: Path, wanted: int) -> None:
    """Raises FetchError now, not after hours, if the disk has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise FetchError(
            f"{folder}: {wanted:,} bytes are to come, and its disk has {free:,} free; choose another --out"
        )


def _poured(answer: BinaryIO, file: BinaryIO, done: int) -> Iterator[int]:
    """Copies until the connection ends; gives the bytes that are there after each piece. Raises ConnectionError for
    whatever the network does, OSError for the disk."""
    while True:
        try:
            chunk = answer.read(CHUNK_BYTES)
        except OSError as error:
            raise ConnectionError(str(error)) from error
        if not chunk:
            return
        file.write(chunk)
        done += len(chunk)
        yield done
