"""A folder of an object store (s3://, gs://), or of any other file system that Arrow knows by its address, for programs
that can wait: what goes wrong is tried again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from infosam.errors import ConfigError

TRIES = 6
FIRST_PAUSE_S = 0.5
"""Doubled after each try: half a minute in all, beside what Arrow's own tries take."""
CHUNK_BYTES = 8 << 20

Answer = TypeVar("Answer")


class Bucket:
    """Files by their names below `uri`. What its methods raise is OSError, after the last try.

    Args:
        pause: waits so many seconds.

    Raises ConfigError for an address that is not understood."""

    def __init__(self, uri: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        import pyarrow as pa

        self.uri = uri
        self._pause = pause
        try:
            self._system, root = _opened(uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ConfigError(f"{uri}: not understood ({error}); it must be s3://, gs:// or file:///") from error
        self._root = root.rstrip("/")

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self._patiently(lambda: self._system.get_file_info(self._path(name)).is_file))

    def read(self, name: str) -> bytes | None:
        """Its content; None if there is no such file."""

        def content() -> bytes | None:
            try:
                with self._system.open_input_stream(self._path(name)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

        return self._patiently(content)

    def write(self, name: str, content: bytes) -> None:
        """The whole file at once; readers see the old one or the new one."""

        def send() -> None:
            self._make_room(name)
            with self._system.open_output_stream(self._path(name)) as stream:
                stream.write(content)

        self._patiently(send)

    def send(self, source: Path, name: str) -> None:
        """A local file."""

        def send() -> None:
            self._make_room(name)
            with source.open("rb") as file, self._system.open_output_stream(self._path(name)) as stream:
                while chunk := file.read(CHUNK_BYTES):
                    stream.write(chunk)

        self._patiently(send)

    def fetch(self, name: str, target: Path) -> str:
        """Writes it to a local file, down to the disk; its SHA-256."""

        def fetch() -> str:
            digest = hashlib.sha256()
            with self._system.open_input_stream(self._path(name)) as stream, target.open("wb") as file:
                while chunk := stream.read(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            return digest.hexdigest()

        return self._patiently(fetch)

    def remove(self, name: str) -> None:
        """No error if it is gone."""

        def remove() -> None:
            try:
                self._system.delete_file(self._path(name))
            except FileNotFoundError:
                return

        self._patiently(remove)

    def folders(self) -> list[str]:
        """Names of what has files below it."""
        from pyarrow.fs import FileSelector, FileType

        def look() -> list[str]:
            found = self._system.get_file_info(FileSelector(self._path(""), allow_not_found=True))
            return sorted(one.base_name for one in found if one.type == FileType.Directory)

        return self._patiently(look)

    def _make_room(self, name: str) -> None:
        # An object store has no folders, but one on a disk does.
        if self._system.type_name == "local":
            self._system.create_dir(self._path(name).rpartition("/")[0], recursive=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _patiently(self, act: Callable[[], Answer]) -> Answer:
        pause_s = FIRST_PAUSE_S
        for _ in range(TRIES - 1):
            try:
                return act()
            except FileNotFoundError:
                raise
            except OSError as error:
                if _is_final(error):
                    raise
            self._pause(pause_s)
            pause_s *= 2
        return act()


def _opened(uri: str) -> tuple[Any, str]:
    """File system and path of an address. On S3 a small file takes one request instead of three, where Arrow can."""
    import pyarrow as pa
    from pyarrow.fs import FileSystem

    if uri.startswith("s3://"):
        with contextlib.suppress(pa.ArrowInvalid):
            return FileSystem.from_uri(f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true")
    return FileSystem.from_uri(uri)


def _is_final(error: Any) -> bool:
    """Whether to try again is in vain: the rights are missing, or the local disk is full."""
    return isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error) or "No space left" in str(error)
