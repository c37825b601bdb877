"""Fetches one file whose sum is known: resumed where it broke off, and in place only when it is the right one."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from infosam.errors import WeightsError

CHUNK_BYTES = 1 << 20
TRIES = 5  # without a single new byte; as long as some arrive, it goes on
PAUSE_S = 1.0  # before the second try in vain; twice as long before each further one
TIMEOUT_S = 60.0
Progress = Callable[[int, int | None], None]  # bytes there, bytes in all if the server says


def fetch_file(
    source: str,
    out: Path,
    *,
    sha256: str,
    max_bytes: int,
    progress: Progress | None = None,
    timeout_s: float = TIMEOUT_S,
    pause_s: float = PAUSE_S,
) -> bool:
    """Brings `source`, an http(s) address or a local path, to `out`; False if `out` already is the right file.

    What has arrived is kept in `out` + ".partial", so that the next call goes on from there, unless its sum is wrong.
    `max_bytes` ends a stream that does not. Raises WeightsError if `out` is another file, or the source cannot be
    reached, breaks off again and again, or is not the file that the sum belongs to."""
    if out.exists():
        if out.is_file() and sha256_of_file(out) == sha256:
            return False
        raise WeightsError(
            f"{out}: already exists and is not this file (SHA-256 differs); move it or choose another --out"
        )
    partial = out.with_name(out.name + ".partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if urlsplit(source).scheme in ("http", "https"):
            _download(source, partial, max_bytes, progress, timeout_s, pause_s)
        else:
            _copy(Path(source), partial)
        found = sha256_of_file(partial)
        if found != sha256:
            partial.unlink()
            raise WeightsError(
                f"{source}: is not the expected file: SHA-256 {found}, expected {sha256}; it was deleted again. "
                "Use another mirror"
            )
        os.replace(partial, out)
    except OSError as error:
        raise WeightsError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
    return True


def sha256_of_file(path: Path) -> str:
    """Of its content, as 64 hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, partial: Path) -> None:
    if not source.is_file():
        raise WeightsError(f"{source}: no such file, and no http(s) address; correct --from")
    shutil.copyfile(source, partial)


def _download(
    address: str, partial: Path, max_bytes: int, progress: Progress | None, timeout_s: float, pause_s: float
) -> None:
    """Until the server says that all is there; a broken connection is taken up again where it ended."""
    tries = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _continue(address, partial, max_bytes, progress, timeout_s)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # all of it is there already; the sum decides
            raise WeightsError(f"{address}: the server says {error.code} {error.reason}; use another mirror") from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            after = partial.stat().st_size if partial.exists() else 0
            tries = 0 if after > before else tries + 1
            if tries == TRIES:
                reason = getattr(error, "reason", None) or error
                raise WeightsError(
                    f"{address}: cannot be fetched ({reason}); run the command again to go on, or use another mirror"
                ) from None
            if tries:
                time.sleep(pause_s * 2 ** (tries - 1))


def _continue(address: str, partial: Path, max_bytes: int, progress: Progress | None, timeout_s: float) -> None:
    """One connection. Raises HTTPException or OSError if it ends before the length that the server promised."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        if not resumed:
            start = 0  # a server that cannot go on sends everything anew
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        with partial.open("ab" if resumed else "wb") as file:
            for done in _poured(answer, file, start):
                if done > max_bytes:
                    reason = f"sends more than {max_bytes:,} bytes, so it is another file"
                    raise WeightsError(f"{address}: {reason}; use another mirror")
                if progress:
                    progress(done, total)
    if total is not None and partial.stat().st_size < total:
        raise http.client.IncompleteRead(b"", total - partial.stat().st_size)


def _poured(answer: BinaryIO, file: BinaryIO, done: int) -> Iterator[int]:
    """Copies until the connection ends; gives the bytes that are there after each piece."""
    while chunk := answer.read(CHUNK_BYTES):
        file.write(chunk)
        done += len(chunk)
        yield done
