"""Data as it comes when something went wrong: each refused with the file, the reason and the cure, and nothing
written."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_sources import SIZE, coco, coco_content, encoded, huggingface, pixels, write_pictures

from infosam import cli

Break = Callable[[Path], Path]  # makes a bad source in a folder, returns what is given as SRC


def csv_rows(folder: Path, *rows: str, header: str = "image,label") -> Path:
    write_pictures(folder)
    good = [f"images/{n}.png,masks/{n}.png" for n in range(4)]
    (folder / "list.csv").write_text("\n".join([header, *good, *rows]) + "\n")
    return folder / "list.csv"


def with_mask(picture: Image.Image, name: str = "2.png", **options: object) -> Break:
    def make(folder: Path) -> Path:
        write_pictures(folder)
        picture.save(folder / "masks" / name, **options)
        return folder

    return make


def with_image(content: bytes) -> Break:
    def make(folder: Path) -> Path:
        write_pictures(folder)
        (folder / "images" / "2.png").write_bytes(content)
        return folder

    return make


def with_row(*rows: str) -> Break:
    return lambda folder: csv_rows(folder, *rows)


def with_file(name: str, content: bytes) -> Break:
    def make(folder: Path) -> Path:
        write_pictures(folder)
        (folder / name).write_bytes(content)
        return folder / name

    return make


def with_coco(change: Callable[[dict], object]) -> Break:
    def make(folder: Path) -> Path:
        source = coco(folder)
        content = coco_content()
        change(content)
        (source / "annotations" / "instances.json").write_text(json.dumps(content))
        return source

    return make


def smeared(folder: Path) -> Path:
    write_pictures(folder)
    mask = np.where(np.hypot(*np.mgrid[-32:32, -32:32]) < 20, 255, 0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "JPEG", quality=60)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(folder / "images" / "2.png")
    (folder / "masks" / "2.png").write_bytes(buffer.getvalue())
    return folder


def not_utf8(folder: Path) -> Path:
    """Names as an old system in latin-1 wrote them."""
    write_pictures(folder)
    for kind in ("images", "masks"):
        (folder / kind / "2.png").rename(os.fsdecode(os.fsencode(folder / kind) + b"/caf\xe9.png"))
    return folder


def only_its_mask(folder: Path) -> Path:
    for path in (not_utf8(folder) / "images").glob("caf*"):
        path.unlink()
    return folder


def rotated(folder: Path) -> Path:
    write_pictures(folder)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(2)).save(folder / "images" / "2.png", exif=exif)
    return folder


def loop(folder: Path) -> Path:
    write_pictures(folder)
    (folder / "images" / "again").symlink_to(folder / "images", target_is_directory=True)
    return folder


def dangling(folder: Path) -> Path:
    write_pictures(folder)
    (folder / "masks" / "2.png").unlink()
    (folder / "masks" / "2.png").symlink_to(folder / "gone.png")
    return folder


def circle(folder: Path) -> Path:
    write_pictures(folder)
    (folder / "masks" / "2.png").unlink()
    (folder / "masks" / "2.png").symlink_to(folder / "masks" / "2.png")
    return folder


def pipe(folder: Path) -> Path:
    write_pictures(folder)
    (folder / "images" / "2.png").unlink()
    os.mkfifo(folder / "images" / "2.png")
    return folder


def device(folder: Path) -> Path:
    write_pictures(folder)
    (folder / "masks" / "2.png").unlink()
    (folder / "masks" / "2.png").symlink_to("/dev/zero")
    return folder


def bomb(folder: Path) -> Path:
    """A PNG that claims 60,000 x 60,000 px."""
    write_pictures(folder)
    content = bytearray(encoded(pixels(2)))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    (folder / "images" / "2.png").write_bytes(bytes(content))
    return folder


def embedded(image: object, label: object) -> Break:
    def make(folder: Path) -> Path:
        folder.mkdir()
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        good = {"bytes": encoded(pixels(0)), "path": "0.png"}
        columns = {"image": [good] * 4 + [image or good], "label": [good] * 4 + [label or good]}
        pq.write_table(pa.table({name: pa.array(c, kind) for name, c in columns.items()}), folder / "train.parquet")
        return folder

    return make


def cut_arrow(folder: Path) -> Path:
    path = next(huggingface(folder).glob("train/*.arrow"))
    path.write_bytes(path.read_bytes()[:300])
    return folder


def emptied(folder: Path) -> Path:
    folder.mkdir()
    return folder


def without(name: str, instead: str = "gone") -> Break:
    def make(folder: Path) -> Path:
        write_pictures(folder)
        (folder / name).rename(folder / instead)
        return folder

    return make


def unreadable_name(folder: Path) -> Path:
    return csv_rows(folder, "images/a\0b.png,masks/1.png")


def all_blank(folder: Path) -> Path:
    write_pictures(folder)
    for path in (folder / "masks").iterdir():
        Image.new("L", (SIZE[1], SIZE[0])).save(path)
    return folder


GREY = Image.new("L", (SIZE[1], SIZE[0]))
GRADIENT = Image.fromarray(np.arange(24 * 32, dtype=np.uint8).reshape(24, 32))
GLASS = Image.new("RGBA", (SIZE[1], SIZE[0]), (255, 255, 255, 100))
PNG = encoded(pixels(2))

# name -> (what is done, words of the message, one of which is a cure)
CASES: Mapping[str, tuple[Break, tuple[str, ...]]] = {
    "nothing there": (lambda folder: folder / "gone", ("no such file or folder", "expected one of")),
    "a bucket": (lambda folder: Path("s3://bucket/set"), ("s3://bucket/set", "copy it here first")),
    "a format nobody reads": (without("images/2.png", "images/2.heic"), ("images/2.heic", "save it as PNG")),
    "masks nobody reads": (without("masks/2.png", "masks/2.svg"), ("masks/2.svg", "save it as PNG")),
    "empty folder": (emptied, ("it holds nothing", "expected one of")),
    "folder of other things": (
        lambda folder: with_file("notes.txt", b"x")(folder).parent / "images",
        ("no data set", "expected one of"),
    ),
    "a picture as source": (
        lambda folder: with_image(PNG)(folder) / "images" / "2.png",
        ("not a list", "expected one of"),
    ),
    "empty list": (with_file("list.csv", b""), ("found none", "first line must be")),
    "list of a header only": (with_file("list.csv", b"image,label\n"), ("no image-mask pairs", "expected one of")),
    "list in another encoding": (with_file("list.csv", b"image,label\n\xff\xfe\xe9,x\n"), ("UTF-8", "save it as")),
    "too few images": (with_file("list.csv", b"image,label\na.png,b.png\n"), ("too few to make val", "at least 3 are")),
    "list with semicolons": (with_file("list.csv", b"image;label\na;b\n"), ("separate the columns",)),
    "list with an open quote": (with_file("list.csv", b'image,label\n"a,b\n'), ("not a readable CSV", "save it")),
    "list with a huge cell": (
        with_file("list.csv", b"image,label\n" + b"a" * 200_000 + b",b\n"),
        ("field larger", "save it as"),
    ),
    "list with other columns": (with_file("list.csv", b"picture,mask\na,b\n"), ("--mask-column 'mask'",)),
    "list is a broken parquet": (
        with_file("list.parquet", b"PAR1" + b"\0" * 40 + b"PAR1"),
        ("not a readable Parquet", "write it again"),
    ),
    "empty cell": (with_row("images/4.png,"), ("list.csv:6", "column 'label' is empty", "fill it in")),
    "row too short": (with_row("images/4.png"), ("list.csv:6", "fill it in")),
    "path traversal": (with_row("../../secret.png,masks/4.png"), ("list.csv:6", "lies outside", "no '..'")),
    "absolute path": (with_row("/etc/passwd,masks/4.png"), ("list.csv:6", "lies outside", "no '..'")),
    "backslashes": (with_row("images\\4.png,masks/4.png"), ("list.csv:6", "write / instead")),
    "repeated row": (with_row("images/1.png,masks/1.png"), ("list.csv:6", "same image and mask", "remove one")),
    "file that is missing": (with_row("images/77.png,masks/4.png"), ("77.png", "no such file", "add it")),
    "other ending": (with_row("images/4.jpg,masks/4.png"), ("4.png is there, correct the name",)),
    "a folder as a picture": (with_row("images,masks/4.png"), ("is a folder, not a file", "correct the row")),
    "a name no file can have": (unreadable_name, ("list.csv", "check its name")),
    "a name that is too long": (with_row(f"images/{'x' * 300}.png,masks/4.png"), ("list.csv", "check its name")),
    "a name that is too long for a volume": (
        with_row(f"images/{'x' * 300}.nii.gz,masks/4.png"),
        ("list.csv", "check its name"),
    ),
    "unknown split": (
        lambda folder: csv_rows(folder, header="image,label,split"),
        ("split '' is not one of train, val, test", "correct the cell"),
    ),
    "image without mask": (without("masks/3.png"), ("no mask 3.*", "add it or remove")),
    "mask without image": (without("images/3.png"), ("mask without an image", "remove it")),
    "link in a circle of folders": (loop, ("a link to a folder that was already read", "remove the link")),
    "link to nothing": (dangling, ("2.png", "no such file", "link to nothing", "renew or remove")),
    "link to itself": (circle, ("2.png", "check its name and permissions")),
    "a pipe": (pipe, ("is a pipe or a device", "correct the row")),
    "a device that never ends": (device, ("is a pipe or a device", "correct the row")),
    "a name that is no UTF-8": (not_utf8, ("caf\\udce9.png", "not in UTF-8", "rename it")),
    "a mask whose name is no UTF-8": (
        only_its_mask,
        ("caf\\udce9.png", "mask without an image", "remove it"),
    ),
    "empty file": (with_image(b""), ("the file is empty", "copy it again")),
    "cut short": (with_image(PNG[: len(PNG) // 2]), ("2.png", "damaged or cut short", "export it again")),
    "header only": (with_image(PNG[:20]), ("cut short", "export it again")),
    "a page instead of a picture": (with_image(b"<html>404</html>"), ("not a picture", "save it as PNG")),
    "a decompression bomb": (bomb, ("2.png", "million pixels", "cut it into tiles")),
    "mask of another size": (with_mask(GREY.resize((5, 5))), ("5 x 5 px", "export the mask at the size")),
    "mask on the unrotated picture": (rotated, ("EXIF rotation", "rotate the mask")),
    "mask of many values": (with_mask(GRADIENT), ("different values", "--class VALUE")),
    "mask smeared by JPEG": (smeared, ("smeared by JPEG", "threshold it at 127")),
    "transparent mask": (with_mask(GLASS), ("transparent pixels", "save it without alpha")),
    "blank mask": (with_mask(GREY), ("the mask is empty", "--allow-empty")),
    "only blank masks": (all_blank, ("all 6 masks are empty", "check that the label column")),
    "COCO that is no JSON": (
        with_file("bad.json", b'{"images": [], "annotations": [], "categories": '),
        ("not readable JSON", "export it again"),
    ),
    "COCO nested without end": (
        with_file("bad.json", b'{"images": [], "annotations": ' + b"[" * 100_000),
        ("not readable JSON", "export it again"),
    ),
    "COCO without lists": (
        with_file("bad.json", b'{"images": 3, "annotations": {}, "categories": []}'),
        ("no list images", "export it again"),
    ),
    "COCO image without name": (
        with_coco(lambda content: content["images"].__setitem__(1, {"id": 1})),
        ("image 2 has no file_name", "export the file again"),
    ),
    "COCO image that leads out": (
        with_coco(lambda content: content["images"][1].update(file_name="../../x.png")),
        ("image 1", "lies outside", "no '..'"),
    ),
    "COCO image that is missing": (
        with_coco(lambda content: content["images"][1].update(file_name="x.png")),
        ("'x.png' lies neither", "put it there"),
    ),
    "COCO size that cannot be": (
        with_coco(lambda content: content["images"][1].update(height=10**9)),
        ("height is 1000000000", "correct it in the JSON"),
    ),
    "COCO size of another picture": (
        with_coco(lambda content: content["images"][1].update(height=25)),
        ("32 x 25 px", "export the mask at the size"),
    ),
    "COCO ids used twice": (
        with_coco(lambda content: content["images"].append(content["images"][0])),
        ("id 0 is used twice", "export the file again"),
    ),
    "COCO annotation of no image": (
        with_coco(lambda content: content["annotations"][1].update(image_id=99)),
        ("annotation 101", "image_id 99 is no image", "remove or correct"),
    ),
    "COCO annotation with a box only": (
        with_coco(lambda content: content["annotations"][1].update(segmentation=[])),
        ("annotation 101", "perhaps only a box", "draw it again"),
    ),
    "Arrow file cut short": (cut_arrow, ("not a readable Arrow", "write it again")),
    "Parquet cell without picture": (
        embedded({"bytes": None, "path": None}, None),
        ("train.parquet:5", "holds no picture", "remove the row"),
    ),
    "Parquet cell that leads out": (embedded({"bytes": None, "path": "../x.png"}, None), ("lies outside", "no '..'")),
    "Parquet cell with other bytes": (
        embedded({"bytes": b"xx", "path": "a.png"}, None),
        ("not a picture", "save it as PNG"),
    ),
}


IN_A_LIST = {
    "empty list", "list of a header only", "list in another encoding", "too few images", "list with semicolons",
    "list with an open quote", "list with a huge cell", "list with other columns", "empty cell", "row too short",
    "path traversal", "absolute path", "backslashes", "repeated row", "file that is missing", "other ending",
    "a folder as a picture", "a name no file can have", "a name that is too long",
    "a name that is too long for a volume", "unknown split",
}  # fmt: skip
# What a check, which looks at every file and draws no splits, says in other words.
OF_A_CHECK = {
    "too few images": ("a.png", "no such file", "add it or remove the row"),
    "only blank masks": ("0.png", "the mask is empty", "--allow-empty"),
}


def file_of(name: str) -> str:
    """The file, or row of a list, that the message about a case must name."""
    elsewhere = {
        "nothing there": "gone", "empty folder": "source", "folder of other things": "images",
        "image without mask": "3.png", "mask without image": "3.png", "link in a circle of folders": "again",
        "only blank masks": "source", "list is a broken parquet": "list.parquet", "Arrow file cut short": ".arrow",
        "COCO size of another picture": "1.png", "a name that is no UTF-8": "images/caf",
        "a mask whose name is no UTF-8": "masks/caf", "a bucket": "bucket", "a format nobody reads": "2.heic",
        "masks nobody reads": "2.svg",
    }  # fmt: skip
    if name in elsewhere:
        return elsewhere[name]
    if name.startswith("COCO "):
        return "bad.json" if name.endswith(("JSON", "end", "lists")) else "instances.json"
    if name.startswith("Parquet "):
        return "train.parquet:5"
    return "list.csv" if name in IN_A_LIST else "2.png"


def test_there_are_at_least_forty() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_file_and_cure_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    make, words = CASES[name]
    source = make(tmp_path / "source")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "import", str(source), "--domain", "d", "--out", str(tmp_path / "made" / "set")])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    for word in (file_of(name), *words):
        assert word in said.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", CASES)
def test_a_check_says_the_same_without_stopping_at_the_first(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    source = CASES[name][0](tmp_path / "source")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "check", str(source)])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    for word in (file_of(name), *OF_A_CHECK.get(name, CASES[name][1])):
        assert word in said.out + said.err
    assert sorted(tmp_path.rglob("*")) == before
