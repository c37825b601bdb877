"""Brings one public data set: fetched, compared with its sum, unpacked, and ready to be imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infosam.data.readers.table import choose_reader
from infosam.data.staging import put_in_place, staged
from infosam.data.unpack import unpack
from infosam.download import Progress, fetch_file, is_address, sha256_of_file
from infosam.errors import DataError, FetchError

MAX_BYTES = 64 << 30  # the largest of the paper's sets have a few GB
OWN_LISTS = ("train.csv", "val.csv", "test.csv")


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A data set as its authors made it, on disk."""

    source: Path  # what `infosam data import` is given
    files: int
    sha256: str  # of the archive, as it was found
    notes: tuple[str, ...]


def fetch_set(source: str, out: Path, *, sha256: str | None, progress: Progress | None = None) -> Unpacked:
    """Unpacks the archive at `source`, an http(s) address or a file, into the new folder `out`, whole or not at all.

    A download that breaks off goes on with the next call; a file of the user's is left as it is. Raises FetchError if
    the archive cannot be had or has another sum, DataError if it cannot be unpacked safely or `out` is not new."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise DataError(f"{out}: already exists, so nothing was fetched; import it, or choose another --out")
    downloaded = is_address(source)
    archive = out.with_name(f"{out.name}.archive") if downloaded else Path(source)
    if downloaded and (sha256 or not archive.exists()):  # there if an earlier call was stopped while it unpacked
        fetch_file(source, archive, sha256=sha256, max_bytes=MAX_BYTES, progress=progress)
    found = _checked(archive, sha256)
    try:
        with staged(out) as folder:
            files = unpack(archive, folder)
            put_in_place(folder, out)
    except DataError:
        if downloaded:
            archive.unlink(missing_ok=True)  # the next call would fail over it again
        raise
    if downloaded:
        archive.unlink(missing_ok=True)
    root = _root(out)
    return Unpacked(source=root, files=files, sha256=found, notes=_notes(root))


def _checked(archive: Path, sha256: str | None) -> str:
    try:
        found = sha256_of_file(archive)
    except OSError as error:
        raise FetchError(f"{archive}: cannot be read ({error.strerror}); correct --from") from error
    if sha256 and found != sha256:
        raise FetchError(f"{archive}: is not the expected file: SHA-256 {found}, expected {sha256}; get another copy")
    return found


def _root(folder: Path) -> Path:
    """The folder with the data: archives mostly hold one folder with everything in it."""
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def _notes(root: Path) -> tuple[str, ...]:
    """What a user has to know before the import."""
    try:
        choose_reader(root)
    except DataError as error:
        return (f"its layout is not one that the import understands: {error}",)
    tests = sorted(path.name for path in root.glob("test*.csv") if path.name not in OWN_LISTS)
    if not tests or (root / "test.csv").exists():
        return ()
    return (
        f"there is no test.csv but {', '.join(tests)}: copy the one you want to test on to test.csv before the import, "
        "or test images are drawn from train",
    )
