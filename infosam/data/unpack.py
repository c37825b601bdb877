"""Unpacks an archive from strangers: only files and folders, all inside the target, no more than it may hold."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from infosam.errors import DataError

COPY_BYTES = 1 << 20
MAX_READ_BYTES = 16 << 20
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db")
DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
    NotImplementedError, UnicodeDecodeError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may grow to. The largest of the paper's sets has some ten thousand files."""

    entries: int = 200_000
    bytes: int = 64 << 30


def unpack(archive: Path, folder: Path, limits: Limits | None = None) -> int:
    """Writes all files of a zip or tar archive below `folder`, which is empty; returns how many.

    Raises DataError if it is no archive, damaged, needs a password, holds links, devices, a name that leaves the
    folder or comes twice, or more entries or bytes than `limits` say, whatever its headers claim. What was written
    until then stays; the caller throws the folder away."""
    limits = limits or Limits()
    try:
        with ExitStack() as stack:
            tar = _open_tar(stack, archive)
            if tar is not None:
                return _write_all(archive, folder, _of_tar(archive, tar), limits)
            if zipfile.is_zipfile(archive):
                opened = stack.enter_context(zipfile.ZipFile(archive))
                return _write_all(archive, folder, _of_zip(archive, opened), limits)
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno:  # the system's word, not a decoder's
            raise DataError(f"{archive}: cannot be unpacked into {folder.parent} ({error.strerror})") from error
        raise DataError(f"{archive}: cannot be unpacked ({error}): damaged or cut short; fetch it again") from error
    raise DataError(f"{archive}: neither a zip nor a tar archive; look whether it is an error page, and fetch it again")


@dataclass(frozen=True)
class _Entry:
    name: str
    content: IO[bytes] | None  # None: a folder


class _Modest:
    """A stream that cannot be made to fill the memory: tarfile reads a header at once, as long as it says it is."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ_BYTES:
            raise tarfile.TarError(f"a header of {size:,} bytes")
        return self._stream.read(size)


def _open_tar(stack: ExitStack, archive: Path) -> tarfile.TarFile | None:
    """A tar archive, packed in whatever way; None if it is none."""
    for opener in (open, gzip.open, bz2.open, lzma.open):
        try:
            stream: Any = _Modest(stack.enter_context(cast(IO[bytes], opener(archive, "rb"))))
            return stack.enter_context(tarfile.open(fileobj=stream, mode="r:"))
        except (tarfile.ReadError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
    return None


def _of_zip(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Entry]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, info.filename, "is a link or a device, not a file")
        if info.flag_bits & 1:
            raise _refused(archive, info.filename, "needs a password")
        if info.is_dir():
            yield _Entry(info.filename, None)
        else:
            with opened.open(info) as content:
                yield _Entry(info.filename, content)


def _of_tar(archive: Path, opened: tarfile.TarFile) -> Iterator[_Entry]:
    for member in opened:
        if not (member.isreg() or member.isdir()):
            raise _refused(archive, member.name, "is a link or a device, not a file")
        yield _Entry(member.name, opened.extractfile(member))


def _write_all(archive: Path, folder: Path, entries: Iterator[_Entry], limits: Limits) -> int:
    written = 0
    free = allowed = min(limits.bytes, shutil.disk_usage(folder).free)
    for number, entry in enumerate(entries, start=1):
        if number > limits.entries:
            raise _refused(archive, entry.name, f"is one more than the {limits.entries:,} entries that are allowed")
        name = _safe_name(archive, entry.name)
        if any(part in JUNK for part in name.parts):
            continue
        path = folder / name
        try:
            (path.parent if entry.content else path).mkdir(parents=True, exist_ok=True)
            if entry.content:
                free = _write(entry.content, path, free)
                written += 1
        except FileExistsError:
            raise _refused(archive, entry.name, "comes twice") from None
        if free < 0:
            raise _refused(archive, entry.name, f"makes more than the {allowed:,} bytes that are allowed or free")
    if not written:
        raise DataError(f"{archive}: holds no files; fetch it again")
    return written


def _write(content: IO[bytes], path: Path, free: int) -> int:
    """Copies until the content ends or takes more than `free` bytes; returns what is left of them."""
    with path.open("xb") as file:
        while free >= 0 and (chunk := content.read(COPY_BYTES)):
            free -= len(chunk)
            file.write(chunk)
    return free


def _safe_name(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise _refused(archive, name, "leads out of the folder it is unpacked into")
    return path


def _refused(archive: Path, name: str, reason: str) -> DataError:
    return DataError(f"{archive}: entry {name!r} {reason}; nothing was unpacked. Use an archive you trust")
