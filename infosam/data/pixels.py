"""Opens one picture or mask of a user's data and says in words what is wrong with it."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from infosam.data.transforms import to_rgb

EXIF_ORIENTATION = 0x0112
# Pillow's parsers raise any of these on damaged files; SyntaxError is its word for a broken PNG chunk.
PICTURE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError, ZeroDivisionError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip


class Unusable(Exception):
    """A file or a pair of files cannot be used; the text names the file, the reason and the cure."""


@dataclass(frozen=True)
class PairContent:
    """A picture and its mask, checked and normalised."""

    source_image: bytes  # the image file as it was found
    image: bytes  # encoded picture, upright without EXIF
    mask: NDArray[np.bool_]  # (H, W)

    @property
    def width(self) -> int:
        return int(self.mask.shape[1])

    @property
    def height(self) -> int:
        return int(self.mask.shape[0])

    @property
    def fg_fraction(self) -> float:
        """Share of foreground pixels, 0 to 1."""
        return float(self.mask.mean())

    def mask_png(self) -> bytes:
        """The mask as 8-bit single-channel PNG, 0 and 255."""
        return _png(Image.fromarray(self.mask.astype(np.uint8) * 255))


def read_pair(image_path: Path, mask_path: Path) -> PairContent:
    """Opens and checks a picture and its mask. Raises Unusable with every problem of the two files."""
    problems: list[str] = []
    picture: tuple[bytes, bytes, tuple[int, int], bool] | None = None
    mask: NDArray[np.bool_] | None = None
    try:
        picture = _read_picture(image_path)
    except Unusable as problem:
        problems.append(str(problem))
    try:
        mask = read_mask(mask_path)
    except Unusable as problem:
        problems.append(str(problem))
    if picture is None or mask is None:
        raise Unusable("; ".join(problems))
    source, upright, size, rotated = picture
    if mask.shape != size:
        raise Unusable(_size_mismatch(image_path, mask_path, size, (mask.shape[0], mask.shape[1]), rotated))
    return PairContent(source_image=source, image=upright, mask=mask)


def _read_picture(path: Path) -> tuple[bytes, bytes, tuple[int, int], bool]:
    """File content, upright encoded content, (H, W), and whether EXIF asked for a rotation."""
    content = _read_bytes(path, "image")
    try:
        with Image.open(io.BytesIO(content)) as image:
            rotated = image.getexif().get(EXIF_ORIENTATION, 1) in range(2, 9)
            rgb = to_rgb(image)
    except PICTURE_ERRORS as error:
        raise Unusable(_unreadable(path, "image", error)) from error
    upright = _png(Image.fromarray(rgb)) if rotated else content
    return content, upright, (rgb.shape[0], rgb.shape[1]), rotated


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) bool: True where the mask has the higher of its at most two values, never where it is 0."""
    content = _read_bytes(path, "mask")
    try:
        with Image.open(io.BytesIO(content)) as image:
            values = _mask_values(ImageOps.exif_transpose(image), path)
    except PICTURE_ERRORS as error:
        raise Unusable(_unreadable(path, "mask", error)) from error
    found = _distinct(values)
    if len(found) > 2:
        raise Unusable(_not_binary(path, values, found))
    foreground: NDArray[np.bool_] = np.asarray(values == found[-1], dtype=np.bool_)
    return foreground if found[-1] != 0 else ~foreground


def _mask_values(image: Image.Image, path: Path) -> NDArray[np.generic]:
    """(H, W) values of a mask; colours are told apart as numbers, palette masks by their index."""
    if image.mode in ("RGBA", "LA", "PA") and np.asarray(image.getchannel("A")).min() < 255:
        raise Unusable(f"{path}: the mask has transparent pixels; save it without alpha, background 0 and object 255")
    if image.mode in ("LA", "PA"):
        image = image.getchannel(0)
    if image.mode in ("1", "L", "P", "I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    red, green, blue = (np.asarray(channel).astype(np.int32) for channel in image.convert("RGB").split())
    return red * 65536 + green * 256 + blue


def _distinct(values: NDArray[np.generic]) -> list[float]:
    """Sorted distinct values."""
    if values.dtype == np.uint8:  # counting is ten times faster than sorting the pixels
        return [float(value) for value in np.flatnonzero(np.bincount(values.ravel(), minlength=256))]
    return [float(value) for value in np.unique(values)]


def _read_bytes(path: Path, kind: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        siblings = sorted(path.parent.glob(f"{_escaped(path.stem)}.*")) if path.parent.is_dir() else []
        hint = f"; {siblings[0].name} is there, correct the name" if siblings else "; add it or remove the row"
        raise Unusable(f"{path}: {kind}: no such file{hint}") from None
    except IsADirectoryError:
        raise Unusable(f"{path}: {kind}: is a folder, not a file; correct the row") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unusable(f"{path}: {kind} cannot be opened ({reason}); check its name and permissions") from error
    if not content:
        raise Unusable(f"{path}: {kind}: the file is empty (0 bytes); copy it again")
    return content


def _escaped(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _unreadable(path: Path, kind: str, error: BaseException) -> str:
    if isinstance(error, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) * 2 // 1_000_000
        return f"{path}: the {kind} has more than {limit} million pixels; cut it into tiles first"
    if isinstance(error, UnidentifiedImageError):
        return f"{path}: {kind}: not a picture in a known format; save it as PNG or JPEG"
    return f"{path}: the {kind} is damaged or cut short ({error}); copy or export it again"


def _not_binary(path: Path, values: NDArray[np.generic], found: list[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in found[:6]) + (", ..." if len(found) > 6 else "")
    # JPEG spreads white a little below 255; label maps have their few values far from it (255 is their "ignore").
    nearly_white = any(239 <= value < 255 for value in found)
    if values.dtype == np.uint8 and nearly_white and np.isin(values, [*range(17), *range(239, 256)]).mean() > 0.95:
        cure = "it looks smeared by JPEG: threshold it at 127 and save it as PNG"
    else:
        cure = "save one mask per object or class, background 0 and object 255"
    return f"{path}: the mask has {len(found)} different values ({shown}) where two are expected; {cure}"


def _size_mismatch(image: Path, mask: Path, size: tuple[int, int], found: tuple[int, int], rotated: bool) -> str:
    (height, width), (mask_height, mask_width) = size, found
    text = f"{mask}: the mask is {mask_width} x {mask_height} px, its image {image.name} {width} x {height} px"
    if rotated and found == (width, height):
        return f"{text} after its EXIF rotation; the mask was drawn on the unrotated picture: rotate the mask"
    return f"{text}; export the mask at the size of the image, or correct the row if they do not belong together"
