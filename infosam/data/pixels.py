"""Opens one picture or mask of a user's data and says in words what is wrong with it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from infosam.data.masks import (
    NEARLY_BLACK,
    NEARLY_WHITE,
    Unusable,
    distinct,
    mask_values,
    named_by_colour,
    objects_of,
)
from infosam.data.pairs import Labels, Listed, MaskChoice
from infosam.data.png import mask_png, png
from infosam.data.rgb import EXIF_ORIENTATION, is_turned, to_rgb, upright
from infosam.errors import DataError

__all__ = [
    "PICTURE_ERRORS",
    "Claim",
    "PairContent",
    "Unusable",
    "open_both",
    "open_drawing",
    "open_pair",
    "open_picture",
    "open_picture_file",
    "read_mask",
    "read_pair",
]

SUBFILE, SMALLER_OR_MASK = 254, 0b101  # of TIFF: a page that is another one at less resolution, or its transparency
# Pillow's parsers raise any of these on damaged files; SyntaxError is its word for a broken PNG chunk.
PICTURE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, OverflowError, ZeroDivisionError,
    NotImplementedError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
# Of what Pillow could read: EPS, for one, would hand a stranger's program to Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "PPM", "TIFF", "WEBP", "JPEG2000")  # MPO is opened as JPEG
SMALL_BYTES = 16 << 10  # of an image file: PNGs up to about 64 px, photos up to about 200
DARK = 64  # of 255: a picture of 16 bits that stays below uses 14 of them or fewer
_SIZE_CURES = {
    "size": "; export the mask at the size of the image, or correct the row if they do not belong together",
    "size-rotated": " after its EXIF rotation; the mask was drawn on the unrotated picture: rotate the mask",
}


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
        return np.count_nonzero(self.mask) / self.mask.size

    def mask_png(self) -> bytes:
        """The mask as 8-bit single-channel PNG, 0 and 255."""
        return mask_png(self.mask)


@dataclass(frozen=True)
class Picture:
    """An image file, opened."""

    source: bytes  # as it was found
    encoded: bytes | None  # the file, if that is upright
    pixels: NDArray[np.uint8]  # (H, W) or (H, W, 3)
    rgb: NDArray[np.uint8]  # (H, W, 3) upright
    orientation: int = 1  # EXIF's: 1 is upright, above 4 width and height change places
    mode: str = ""  # Pillow's word for the kind of its pixels
    transparent: bool = False  # some of it

    @property
    def rotated(self) -> bool:
        """Whether EXIF asked for it."""
        return self.orientation != 1

    @cached_property
    def upright(self) -> bytes:
        """Encoded, without EXIF rotation. Not before it is asked for: a check never needs it."""
        return png(Image.fromarray(self.pixels)) if self.encoded is None else self.encoded


@dataclass(frozen=True)
class Drawing:
    """A mask file, opened."""

    masks: list[NDArray[np.bool_]]  # (H, W) each; one per object where they are wanted singly
    mode: str = ""  # as above; empty if the mask is no picture
    format: str = ""
    values: tuple[float, ...] = ()
    swapped: bool = False  # its palette shows the object black on white


@dataclass(frozen=True)
class Decoded:
    """An encoded mask."""

    values: NDArray[np.generic]  # (H, W), upright
    mode: str
    format: str
    palette: tuple[int, ...] = ()  # red, green and blue of each index


Claim = Callable[[tuple[int, int]], None]  # is told the size of a picture before that is decoded, and may wait


def open_pair(pair: Listed, choice: MaskChoice | None = None) -> list[PairContent]:
    """Opens and checks a picture and its mask: one result, or one per object if `choice` wants them singly.

    Raises Unusable with every problem of the two."""
    picture, drawing = open_both(pair, choice)
    return [PairContent(source_image=picture.source, image=picture.upright, mask=mask) for mask in drawing.masks]


def open_both(pair: Listed, choice: MaskChoice | None = None, claim: Claim | None = None) -> tuple[Picture, Drawing]:
    """A picture and its mask with all that is known of the files. Raises Unusable with every problem of the two."""
    problems: list[Unusable] = []
    picture: Picture | None = None
    drawing: Drawing | None = None
    try:
        picture = open_picture(pair, claim)
    except Unusable as problem:
        problems.append(problem)
    try:
        drawing = open_drawing(pair, choice, claim)
    except Unusable as problem:
        problems.append(problem)
    if picture is None or drawing is None:
        raise Unusable("; ".join(map(str, problems)), problems[0].kind, problems)
    (mask_height, mask_width), (height, width) = drawing.masks[0].shape, picture.rgb.shape[:2]
    if (mask_height, mask_width) != (height, width):
        kind = "size-rotated" if picture.rotated and (mask_height, mask_width) == (width, height) else "size"
        sizes = f"{mask_width} x {mask_height} px, its image {pair.image.name} {width} x {height} px"
        raise Unusable(f"{pair.mask}: the mask is {sizes}{_SIZE_CURES[kind]}", kind)
    return picture, drawing


def is_small(pair: Listed) -> bool:
    """Whether a pair is opened sooner than a thread takes it over."""
    try:
        return pair.image_content is None and os.stat(pair.image_name).st_size <= SMALL_BYTES
    except (OSError, ValueError):
        return True  # there is nothing to open


def open_picture_file(file: Path | IO[bytes]) -> Image.Image:
    """An ordinary picture, of which only the header is read. Raises `PICTURE_ERRORS`."""
    return Image.open(file, formats=FORMATS)


def open_picture(pair: Listed, claim: Claim | None = None) -> Picture:
    """The picture of a pair. Raises Unusable."""
    path = pair.image
    content = pair.image_content() if pair.image_content else read_bytes(path, "image")
    if isinstance(content, np.ndarray):
        return _of_pixels(content)
    try:
        with open_picture_file(BytesIO(content)) as image:
            refuse_pages(image, path, "image")
            if claim:
                claim(image.size)
            rgb, mode = _shown(image, path)
            orientation = image.getexif().get(EXIF_ORIENTATION, 1) if is_turned(image) else 1
            transparent = _is_transparent(image)
    except PICTURE_ERRORS as error:
        raise unreadable(path, "image", error) from error
    return Picture(
        source=content,
        encoded=content if orientation == 1 else None,
        pixels=rgb,
        rgb=rgb,
        orientation=orientation,
        mode=mode,
        transparent=transparent,
    )


def refuse_pages(image: Image.Image, path: Path, kind: str) -> None:
    """Raises Unusable if a file, of which nothing is loaded yet, holds more pictures than the first: the others would
    be lost."""
    if image.format == "TIFF":
        several = len(own_pages(image)) > 1
    else:
        several = image.format not in ("JPEG", "MPO") and bool(getattr(image, "is_animated", False))
    if several:
        text = f"{path}: the {kind} file holds several pictures, of which only the first would be read"
        raise Unusable(f"{text}; save each as a file of its own, or all as one npy (N, H, W)", "pages")


def own_pages(image: Image.Image) -> list[int]:
    """Numbers of the pages of a TIFF that are pictures of the size of the first. Smaller copies and masks that a file
    keeps of its picture are none. Reads headers only, and leaves the first page open."""
    size, found = image.size, []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        if image.size == size and not int(image.tag_v2.get(SUBFILE, 0)) & SMALLER_OR_MASK:  # type: ignore[attr-defined]
            found.append(number)
    image.seek(0)
    return found


def _is_transparent(image: Image.Image) -> bool:
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return False
    return bool(np.asarray(image.convert("RGBA").getchannel("A")).min() < 255)


def _shown(image: Image.Image, path: Path) -> tuple[NDArray[np.uint8], str]:
    """Pixels (H, W, 3) as of `to_rgb`, and the mode, with ";16" where Pillow keeps the upper 8 of 16 bits a colour.

    Raises Unusable if these are (almost) empty: cameras of 10 to 14 bits write into the lower ones."""
    # Asked before anything is loaded, and Pillow loads a PNG to look for its EXIF: afterwards no tile is left.
    deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ())) and len(image.getbands()) > 1
    mode = f"{image.mode};16" if deep else image.mode
    rgb = to_rgb(image)
    if deep and (brightest := int(rgb.max())) < DARK:
        text = f"{path}: the image has 16 bits a colour and uses only the lower ones (below {(brightest + 1) << 8:,})"
        raise Unusable(f"{text}, so it would be black; stretch it to 0..255 and save it with 8 bits", "dark")
    return rgb, mode


def _of_pixels(pixels: NDArray[np.uint8]) -> Picture:
    """A picture that was never a file of its own. Its source is the pixels: another PNG library must not change it."""
    rgb = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    source = f"{pixels.shape}:".encode() + np.ascontiguousarray(pixels).tobytes()
    return Picture(source=source, encoded=None, pixels=pixels, rgb=rgb)


def open_drawing(pair: Listed, choice: MaskChoice | None = None, claim: Claim | None = None) -> Drawing:
    """The mask of a pair. Raises Unusable."""
    path = pair.mask
    drawn = pair.mask_content() if pair.mask_content else read_bytes(path, "mask")
    choice = choice or MaskChoice()
    if isinstance(drawn, Labels):
        return Drawing(objects_of(drawn.values, choice, path, drawn.whole), values=drawn.whole)
    return Drawing([drawn]) if isinstance(drawn, np.ndarray) else _decode_mask(drawn, path, choice, claim)


def read_pair(image_path: Path, mask_path: Path) -> PairContent:
    """Opens and checks a picture and its mask of two values. Raises Unusable with every problem of the two files."""
    return open_pair(Listed(image_name=str(image_path), mask_name=str(mask_path), split=None, row=image_path.name))[0]


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) bool: True where the mask has the higher of its at most two values, never where it is 0."""
    return _decode_mask(read_bytes(path, "mask"), path, MaskChoice()).masks[0]


def _decode_mask(content: bytes, path: Path, choice: MaskChoice, claim: Claim | None = None) -> Drawing:
    one = decode_values(content, path, choice, claim)
    found = tuple(distinct(one.values))
    return Drawing(
        masks=objects_of(one.values, choice, path, found),
        mode=one.mode,
        format=one.format,
        values=found,
        swapped=not choice.classes and _is_swapped(found, one.palette),
    )


def _is_swapped(values: tuple[float, ...], palette: tuple[int, ...]) -> bool:
    """Whether of two indices the lower one, background, is white and the other one black."""
    if len(values) != 2 or int(values[1]) * 3 + 3 > len(palette):
        return False
    low, high = (palette[int(value) * 3 : int(value) * 3 + 3] for value in values)
    return min(low) in NEARLY_WHITE and max(high) in NEARLY_BLACK


def decode_values(content: bytes, path: Path, choice: MaskChoice, claim: Claim | None = None) -> Decoded:
    """An encoded mask. Raises Unusable."""
    try:
        with open_picture_file(BytesIO(content)) as image:
            refuse_pages(image, path, "mask")
            if claim:
                claim(image.size)
            mode, kind = image.mode, image.format or ""
            palette = tuple(image.getpalette() or ()) if mode == "P" else ()
            values = mask_values(upright(image), path, colours=named_by_colour(choice))
    except PICTURE_ERRORS as error:
        if isinstance(error, DataError):
            raise  # the user's choice, not the file
        raise unreadable(path, "mask", error) from error
    if kind == "JPEG" and choice.classes and len(distinct(values)) > 2:
        text = f"{path}: the mask is a JPEG, which changes the values that --class is about"
        raise Unusable(f"{text}; export it again as PNG", "mask-smeared")
    return Decoded(values, mode, kind, palette)


def decode_rgb(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of an encoded picture, upright. Raises Unusable."""
    try:
        with open_picture_file(BytesIO(content)) as image:
            return _shown(image, path)[0]
    except PICTURE_ERRORS as error:
        raise unreadable(path, "image", error) from error


def read_bytes(path: Path, kind: str) -> bytes:
    """Content of a file. Raises Unusable if it is missing, empty, no file or not to be opened."""
    try:
        kind_of_file = path.stat().st_mode
        if not (S_ISREG(kind_of_file) or S_ISDIR(kind_of_file)):  # reading a pipe or a device would never end
            raise Unusable(f"{path}: {kind}: is a pipe or a device, not a file; correct the row", "missing")
        content = path.read_bytes()
    except FileNotFoundError:
        siblings = sorted(path.parent.glob(f"{_escaped(path.stem)}.*")) if path.parent.is_dir() else []
        hint = f"; {siblings[0].name} is there, correct the name" if siblings else "; add it or remove the row"
        hint = "; it is a link to nothing: renew or remove it" if path.is_symlink() else hint
        raise Unusable(f"{path}: {kind}: no such file{hint}", "missing") from None
    except IsADirectoryError:
        raise Unusable(f"{path}: {kind}: is a folder, not a file; correct the row", "missing") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = f"{path}: {kind} cannot be opened ({reason}); check its name and permissions"
        raise Unusable(text, "missing") from error
    if not content:
        raise Unusable(f"{path}: {kind}: the file is empty (0 bytes); copy it again")
    return content


def _escaped(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


def unreadable(path: Path, kind: str, error: BaseException) -> Unusable:
    """What an error of Pillow means, in words."""
    if isinstance(error, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) * 2 // 1_000_000
        return Unusable(f"{path}: the {kind} has more than {limit} million pixels; cut it into tiles first", "bomb")
    if isinstance(error, UnidentifiedImageError):
        return Unusable(f"{path}: {kind}: not a picture in a known format; save it as PNG or JPEG", "format")
    return Unusable(f"{path}: the {kind} is damaged or cut short ({error}); copy or export it again", "damaged")
