"""Random bytes and random structure: whatever comes is read or refused, never a crash, never a hang."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_sources import SIZE, coco_content, encoded, huggingface, pixels, truth, write_pictures

from infosam.data.manifest import find_pairs
from infosam.data.masks import Unusable
from infosam.data.pixels import read_pair
from infosam.data.readers import shapes
from infosam.data.readers.matching import find_rule, pair_names
from infosam.data.unpack import Limits, unpack
from infosam.errors import DataError

FEW = settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["size", "counts", "id"]), inner),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def heads() -> dict[str, bytes]:
    """The beginnings of pictures in several formats."""
    found = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        Image.fromarray(pixels(1)).save(buffer, format=kind)
        found[kind] = buffer.getvalue()
    return found


@FEW
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_changed_header_is_read_or_refused(data: st.DataObject, heads: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(heads[data.draw(st.sampled_from(sorted(heads)))])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 120) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    image, mask = tmp_path / "i.png", tmp_path / "m.png"
    image.write_bytes(bytes(content[:cut]))
    mask.write_bytes(bytes(content))
    with suppress(Unusable):
        read_pair(image, mask)


# First bytes of everything Pillow has a reader for, so that random bytes get past the door.
MAGIC = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"P6 ", b"P5 9 9 65535 ", b"Pf ", b"II*\0", b"MM\0*",
    b"II+\0",     b"RIFF\x20\0\0\0WEBPVP8L", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"\0\0\0 ftypavif",
    b"DDS \x7c\0\0\0",     b"BLP1", b"BLP2\x01\0\0\0", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6",
    b"8BPS\0\x01", b"\0\0\1\0\1\0", b"\0\0\2\0\1\0",     b"icns", b"\x01\xda\x01\x01", b"\x0a\x05\x01\x08",
    b"SIMPLE  =  T", b"qoif", b"Y\xa6\x6a\x95", b"#define x_width 9\n", b"FTEX",     b"\x80\xe8\0\0",
    b"\xd7\xcd\xc6\x9a\0\0", b"\1\0\0\0", b"\xb1\x68\xde\x3a", b"DanM", b"LinS", b"GRIB",
    b"\x89HDF\r\n\x1a\n",     b"gimp pattern", b"\0\0\xaf\x11\xaf\x12", b"IMAGE MAGIC: PixarFile",
)  # fmt: skip


@settings(FEW, max_examples=150)
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=400))
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_any_bytes_behind_the_first_of_a_format(magic: bytes, rest: bytes, tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(magic + rest)
    (tmp_path / "m.png").write_bytes(magic + rest)
    with suppress(Unusable):
        read_pair(tmp_path / "i.png", tmp_path / "m.png")


@pytest.mark.parametrize("kind", ["EPS", "DDS", "TGA", "ICO", "PCX"])
def test_formats_that_nobody_needs_are_not_opened(kind: str, tmp_path: Path) -> None:
    """EPS is a program, which Pillow would have Ghostscript run."""
    Image.fromarray(pixels(1)).save(tmp_path / "i.png", format=kind)
    (tmp_path / "m.png").write_bytes(encoded(truth(1).astype("uint8")))
    with pytest.raises(Unusable, match=r"i\.png: image: not a picture in a known format; save it as PNG") as refused:
        read_pair(tmp_path / "i.png", tmp_path / "m.png")
    assert refused.value.kind == "format"


def archives() -> list[bytes]:
    """A file in each kind of archive."""
    found = []
    for how in ("w", "w:gz", "w:bz2", "w:xz"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=how) as tar:  # type: ignore[call-overload]
            info = tarfile.TarInfo("a/b.png")
            info.size = 600
            tar.addfile(info, io.BytesIO(bytes(range(200)) * 3))
        found.append(buffer.getvalue())
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", packing) as zipped:
            zipped.writestr("a/b.png", bytes(range(200)) * 3)
        found.append(buffer.getvalue())
    return found


ARCHIVES = archives()


@settings(FEW, max_examples=150)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_changed_archive_is_unpacked_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(data.draw(st.sampled_from(ARCHIVES)))
    for _ in range(data.draw(st.integers(1, 4))):
        # The heads of tar and of the first file of a zip, or the list at the end of a zip.
        place = data.draw(st.integers(0, min(len(content), 300) - 1)) * data.draw(st.sampled_from([1, -1]))
        content[place] = data.draw(st.integers(0, 255))
    _unpack(bytes(content[: data.draw(st.integers(1, len(content)))]), tmp_path)


@FEW
@given(
    magic=st.sampled_from([b"PK\3\4", b"PK\5\6", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b""]),
    rest=st.binary(max_size=600),
)
def test_any_bytes_as_an_archive(magic: bytes, rest: bytes, tmp_path: Path) -> None:
    _unpack(magic + rest, tmp_path)


def _unpack(content: bytes, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        (Path(folder) / "archive").write_bytes(content)
        (Path(folder) / "target").mkdir()
        with suppress(DataError):
            unpack(Path(folder) / "archive", Path(folder) / "target", Limits(entries=100, bytes=1 << 20))
        assert {path.name for path in Path(folder).iterdir()} == {"archive", "target"}


@FEW
@given(text=st.binary(max_size=300), name=st.sampled_from(["list.csv", "list.tsv", "list.json", "list.parquet"]))
def test_any_bytes_as_a_list(text: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"image,label\n" * (name[-3:] == "csv") + text)
    with suppress(DataError):
        assert find_pairs(path)


@FEW
@given(segmentation=JSON)
def test_any_json_as_a_segmentation(segmentation: Any) -> None:
    with suppress(shapes.BadShape):
        shapes.check_segmentation(segmentation, SIZE)
        assert shapes.draw(segmentation, SIZE).shape == SIZE


@FEW
@given(
    outline=st.lists(st.floats(-1e6, 1e6) | st.integers(-50, 50), min_size=6, max_size=40).filter(
        lambda numbers: len(numbers) % 2 == 0
    )
)
def test_any_outline_is_drawn_unless_it_is_in_shares_of_the_image(outline: list[float]) -> None:
    if 0 < max(map(abs, outline)) <= 1:
        with pytest.raises(shapes.BadShape, match="not in shares of the image"):
            shapes.draw([outline], SIZE)
    else:
        assert shapes.draw([outline], SIZE).shape == SIZE


@FEW
@given(text=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=60))
def test_any_text_as_run_lengths(text: str) -> None:
    with suppress(shapes.BadShape):
        shapes.check_segmentation({"size": list(SIZE), "counts": text}, SIZE)


@FEW
@given(where=st.sampled_from(["images", "annotations", "categories"]), what=JSON, entry=st.integers(0, 5))
def test_any_json_inside_coco(where: str, what: Any, entry: int, tmp_path: Path) -> None:
    if not (tmp_path / "images").exists():
        write_pictures(tmp_path, mask=None)
    content: Any = coco_content()
    content[where] = [*content[where][:entry], what, *content[where][entry:]]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    with suppress(DataError):
        assert find_pairs(path)


@FEW
@given(where=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_changed_byte_in_an_arrow_file(where: int, byte: int, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    if not folder.exists():
        huggingface(folder)
        (tmp_path / "kept").write_bytes((folder / "train" / "data-00000-of-00001.arrow").read_bytes())
    content = bytearray((tmp_path / "kept").read_bytes())
    content[where % len(content)] = byte
    target = folder / "train" / "data-00000-of-00001.arrow"
    target.unlink()  # the old one may still be mapped
    target.write_bytes(bytes(content))
    with suppress(DataError):
        assert find_pairs(folder)


NAMES = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12), max_size=12)


@FEW
@given(images=NAMES, masks=NAMES)
def test_any_names_are_matched_or_not(images: list[str], masks: list[str]) -> None:
    paired = pair_names(find_rule(images, masks), images, masks)
    assert paired.keys() <= set(images)
    assert {mask for found in paired.values() for mask in found} <= set(masks)


def test_the_helpers_of_this_file_are_good_pictures(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(encoded(pixels(0)))
    (tmp_path / "m.png").write_bytes(encoded(truth(0).astype("uint8")))
    assert read_pair(tmp_path / "i.png", tmp_path / "m.png").fg_fraction > 0
