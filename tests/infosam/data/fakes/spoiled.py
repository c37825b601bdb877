"""What spoils a folder of good pairs, one way for each kind of finding."""

from __future__ import annotations

import hashlib
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from small_sources import encoded, pixels

from infosam.data.check.fix import write_fixed
from infosam.data.check.run import Report, check_source

SIDE = 64


def state(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def mended(source: Path, out: Path) -> Report:
    """Checks the cleaned copy of a source, which stays as it is."""
    folder = source if source.is_dir() else source.parent
    before = state(folder)
    write_fixed(check_source(source), out)
    assert state(folder) == before
    return check_source(out / "list.csv")


def photo(seed: int, side: int = SIDE) -> Image.Image:
    """Soft blobs: unlike noise they survive scaling and compression, as photographs do."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def disc(side: int = SIDE, value: int = 255) -> NDArray[np.uint8]:
    y, x = np.mgrid[:side, :side] - side // 2
    return np.where(x**2 + y**2 < (side // 4) ** 2, value, 0).astype(np.uint8)


def save(folder: Path, name: str, image: Image.Image, mask: Image.Image | NDArray[np.uint8]) -> None:
    for kind, picture in (("images", image), ("masks", mask)):
        path = folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path)


def replace_image(picture: Callable[[], Image.Image], **options: object) -> Callable[[Path], None]:
    return lambda source: picture().save(source / "images/train/1.png", **options)


def replace_mask(mask: NDArray[np.uint8] | Image.Image) -> Callable[[Path], None]:
    picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    return lambda source: picture.save(source / "masks/train/1.png")


def palette() -> Image.Image:
    mask = Image.fromarray(disc(value=1), mode="P")
    mask.putpalette([0, 0, 0, 255, 255, 255])
    return mask


def smeared() -> Callable[[Path], None]:
    def write(source: Path) -> None:
        Image.fromarray(disc()).save(source / "masks/train/1.png", format="JPEG", quality=60)

    return write


def turned(orientation: int, width: int = SIDE, *, mask_too: bool = True) -> Callable[[Path], None]:
    """A picture to be turned, and its mask drawn after that, or else before."""

    def write(source: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        mask = Image.fromarray(disc()).crop((0, 0, width, SIDE))
        save(source, "train/1.png", photo(1).crop((0, 0, width, SIDE)), mask.transpose(2) if mask_too else mask)
        Image.open(source / "images/train/1.png").save(source / "images/train/1.png", exif=exif)

    return write


def cmyk(source: Path) -> None:
    photo(1).convert("CMYK").save(source / "images/train/1.png", format="TIFF")


def wider(source: Path) -> None:
    save(source, "train/1.png", photo(1, 300), disc(300))


def hair(source: Path) -> None:
    mask = np.zeros((1024, 1024), np.uint8)
    mask[100:900, 500] = 255
    save(source, "train/1.png", photo(1, 1024), mask)


def copied(source: Path, to: str) -> None:
    shutil.copy(source / "images/train/1.png", source / f"images/{to}.png")


def recompressed(source: Path) -> None:
    Image.open(source / "images/train/1.png").save(source / "images/val/5.png", format="JPEG", quality=70)


def renamed(source: Path) -> None:
    for kind in ("images", "masks"):
        (source / kind / "train/1.png").rename(source / kind / "train/1\n2 .png")


def tiny_objects(source: Path) -> None:
    for path in (source / "masks").rglob("*.png"):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[30:33, 30:33] = 255
        Image.fromarray(mask).save(path)


def many_large_in_val(source: Path) -> None:
    small = np.zeros((SIDE, SIDE), np.uint8)
    small[20:30, 20:30] = 255
    for split, mask in (("train", small), ("val", disc())):
        for number in range(20, 32):
            save(source, f"{split}/{number}{split}.png", photo(2 * number + (split == "val")), mask)
    for path in (source / "masks/train").iterdir():
        Image.fromarray(small).save(path)


def dangling(source: Path) -> None:
    (source / "masks/train/1.png").unlink()
    (source / "masks/train/1.png").symlink_to(source / "gone.png")


def deep(bits: int) -> Callable[[Path], None]:
    """A PNG of 16 bits a colour, of which so many are used; Pillow cannot write one."""

    def write(source: Path) -> None:
        values = np.asarray(photo(1), np.uint16) << (bits - 8)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        head = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
        content = b"\x89PNG\r\n\x1a\n"
        for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        (source / "images/train/1.png").write_bytes(content)

    return write


def of_two_classes(source: Path) -> None:
    for path, value in (("train/0", 3), ("train/1", 7), ("train/2", 3)):
        Image.fromarray(disc(value=value)).save(source / f"masks/{path}.png")


def drop(*splits: str) -> Callable[[Path], None]:
    def write(source: Path) -> None:
        for kind in ("images", "masks"):
            for split in splits:
                path = source / kind / split
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return write


SPOILS: Mapping[str, Callable[[Path], object]] = {
    "listing": lambda source: (source / "masks/train/1.png").unlink(),
    "missing": dangling,
    "format": lambda source: (source / "images/train/1.png").write_bytes(b"text"),
    "damaged": lambda source: (source / "images/train/1.png").write_bytes(encoded(pixels(1))[:200]),
    "dark": deep(12),
    "nothing": drop("val", "test", "train/2.png", "train/3.png"),
    "size": replace_mask(disc(32)),
    "pages": replace_image(
        lambda: photo(1).convert("P"), format="GIF", save_all=True, append_images=[photo(2).convert("P")]
    ),
    "own-mask": replace_image(lambda: Image.fromarray(disc())),
    "size-rotated": turned(6, 48, mask_too=False),
    "mask-alpha": replace_mask(Image.new("RGBA", (SIDE, SIDE), (255, 255, 255, 9))),
    "mask-smeared": smeared(),
    "mask-values": replace_mask(np.repeat(np.arange(SIDE, dtype=np.uint8)[None], SIDE, axis=0)),
    "blank": replace_mask(disc(value=0)),
    "full": replace_mask(np.full((SIDE, SIDE), 255, np.uint8)),
    "inverted": replace_mask(255 - disc()),
    "thin": hair,
    "huge": wider,
    "duplicate": lambda source: copied(source, "test/6"),
    "repeated": lambda source: copied(source, "train/2"),
    "near-duplicate": recompressed,
    "no-split": drop("val"),
    "no-train": drop("train"),
    "imbalance": tiny_objects,
    "classes": of_two_classes,
    "split-shift": many_large_in_val,
    "faint": replace_image(lambda: Image.fromarray(np.asarray(photo(1)) // 24 + 100)),
    "sixteen-bit": replace_image(lambda: Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE))),
    "cmyk": cmyk,
    "alpha": replace_image(lambda: photo(1).convert("RGBA").rotate(9)),
    "exif": turned(6, 48),
    "exif-mask": turned(3),
    "mask-palette": replace_mask(palette()),
    "mask-levels": replace_mask(disc(value=1)),
    "name": renamed,
}
