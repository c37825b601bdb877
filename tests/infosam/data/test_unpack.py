"""Archives as strangers make them, and as those make them who want to do harm."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from infosam.data.unpack import Limits, unpack
from infosam.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "in" / "target"
    target.mkdir(parents=True)
    return target


def zipped(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=zipfile.ZIP_DEFLATED)
    return path


def tarred(path: Path, *entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(
        path, "w:" + path.suffix.lstrip(".") if path.suffix in (".gz", ".bz2", ".xz") else "w"
    ) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def outside(tmp_path: Path) -> list[str]:
    """What lies beside the target, or above it."""
    return sorted(path.name for path in tmp_path.rglob("*") if path.name not in ("in", "target", "a.zip", "a.tar"))


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_files_and_folders_arrive(tmp_path: Path, folder: Path, make: object, name: str) -> None:
    entries = [("set/images/a.jpg", b"a" * 3000), ("./set/list.csv", b"b"), ("__MACOSX/set/._a.jpg", b"junk")]
    assert unpack(make(tmp_path / name, *entries), folder) == 2  # type: ignore[operator]
    assert (folder / "set/images/a.jpg").read_bytes() == b"a" * 3000
    assert (folder / "set/list.csv").read_bytes() == b"b"
    assert [path.name for path in folder.iterdir()] == ["set"]


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil"])
def test_no_name_leads_out(tmp_path: Path, folder: Path, make: object, name: str) -> None:
    archive = make(tmp_path / "a.zip", (name, b"x"))  # type: ignore[operator]
    with pytest.raises(DataError, match="leads out of the folder"):
        unpack(archive, folder)
    assert outside(tmp_path) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_no_links_and_devices_in_tar(tmp_path: Path, folder: Path, kind: bytes) -> None:
    archive = tarred(tmp_path / "a.tar", ("evil", b""), kind=kind, link="../../secret")
    with pytest.raises(DataError, match="'evil' is a link or a device"):
        unpack(archive, folder)
    assert outside(tmp_path) == []


def test_no_links_in_zip(tmp_path: Path, folder: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("evil")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc")
        archive.writestr("evil/passwd", "x")
    with pytest.raises(DataError, match="'evil' is a link or a device"):
        unpack(tmp_path / "a.zip", folder)
    assert outside(tmp_path) == []


@pytest.mark.parametrize("make", [zipped, tarred])
def test_bombs_are_stopped(tmp_path: Path, folder: Path, make: object) -> None:
    archive = make(tmp_path / "a.tar.gz", ("zeros", bytes(40 << 20)))  # type: ignore[operator]
    assert archive.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="'zeros' makes more than the 5,000,000 bytes"):
        unpack(archive, folder, Limits(bytes=5_000_000))
    assert (folder / "zeros").stat().st_size < 8 << 20
    many = make(tmp_path / "many.tar", *((str(number), b"") for number in range(20)))  # type: ignore[operator]
    with pytest.raises(DataError, match="one more than the 10 entries"):
        unpack(many, folder, Limits(entries=10))


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.tar.gz"
    tarred(path, ("fine", b"x"), ("long", bytes(20 << 20)), kind=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(DataError, match=r"a header of 20,971,520 bytes"):
        unpack(path, folder)


@pytest.mark.parametrize("content", [b"", bytes(20_000)])
def test_an_archive_of_nothing_is_refused(tmp_path: Path, folder: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="fetch it again"):
        unpack(tmp_path / "a.zip", folder)
    with pytest.raises(DataError, match="holds no files"):
        unpack(zipped(tmp_path / "b.zip", ("__MACOSX/a", b"x")), folder)


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_name_comes_twice(tmp_path: Path, folder: Path, make: object) -> None:
    for number, second in enumerate(("a", "a/b")):
        archive = make(tmp_path / f"{number}.zip", ("a", b"1"), (second, b"2"))  # type: ignore[operator]
        (folder / str(number)).mkdir()
        with pytest.raises(DataError, match="comes twice"):
            unpack(archive, folder / str(number))


def test_a_password_is_told(tmp_path: Path, folder: Path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", ("a", b"x")).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="needs a password"):
        unpack(tmp_path / "a.zip", folder)


@pytest.mark.parametrize("keep", [10, 2000, -30])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_damaged_archives_and_pages_are_refused(tmp_path: Path, folder: Path, make: object, keep: int) -> None:
    noise = random.Random(1).randbytes(9000)
    archive = make(tmp_path / "a.tar.gz", ("a", noise), ("b", noise[::-1]))  # type: ignore[operator]
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(DataError, match="fetch it again"):
        unpack(archive, folder)
    (tmp_path / "page.zip").write_bytes(b"<html>please log in</html>")
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        unpack(tmp_path / "page.zip", folder)


def test_a_flipped_bit_is_seen(tmp_path: Path, folder: Path) -> None:
    noise = random.Random(1).randbytes(9000)
    archive = zipped(tmp_path / "a.zip", ("a", noise))
    content = bytearray(archive.read_bytes())
    content[100] ^= 4
    archive.write_bytes(content)
    with pytest.raises(DataError, match="damaged or cut short"):
        unpack(archive, folder)
