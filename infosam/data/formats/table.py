"""Which file is opened how: what an image is, and what a mask is on that image."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from infosam.data.formats import (
    arrays,
    dicom,
    dicom_contours,
    dicom_header,
    dicom_seg,
    geotiff,
    names,
    nifti,
    pages,
    picture,
)
from infosam.data.formats.channels import Channels, channels_of, open_channels
from infosam.data.formats.contract import Stack
from infosam.data.masks import Unusable
from infosam.data.pairs import PICTURE_SUFFIXES, Listed, MaskChoice, PartOptions, ReadOptions
from infosam.data.pixels import PICTURE_ERRORS, open_picture_file, read_bytes


@dataclass(frozen=True)
class Source:
    """How to open a file, and which of its pictures are meant."""

    key: Hashable  # of the opened file
    open: Callable[[], Stack]
    chosen: Sequence[int] | None = None  # None: all


def image_source(pair: Listed, options: ReadOptions) -> Source | None:
    """Of an image that is more than an ordinary picture, or larger than a tile; None for all others. Raises Unusable,
    and DataError if a library is missing."""
    parts, path = options.parts, pair.image
    windowed = parts.window is not None
    if pair.image_content is None:
        if os.path.isdir(path):  # False, not an error, for names that no folder can have
            if not names.dicoms_in(path):
                return None
            return Source(("image", path), lambda: dicom.open_series(path, "image", windowed=windowed))
        if names.has_suffix(path, names.VOLUME_SUFFIXES):
            check_there(path, "image")
        if names.has_suffix(path, names.NIFTI_SUFFIXES):
            channels = channels_of(path) if parts.bands else []
            if channels:
                return Source(("image", path), lambda: open_channels(channels, parts))
            return Source(("image", path), lambda: nifti.open_volume(path, "image", parts))
        if names.has_suffix(path, names.ARRAY_SUFFIXES):
            drawn = _shape_of_mask(pair)
            return Source(("image", path, drawn), lambda: arrays.open_array(path, "image", parts, drawn))
        if names.is_dicom(path):
            series, chosen = dicom.open_file(path, "image", windowed=windowed)
            key = ("series", path.parent, series.frames[0].series, series.size)
            return Source(key, lambda: dicom.open_file(path, "image", windowed=windowed)[0], chosen)
        scene = geotiff.is_scene(path)
        if found := pages.pages_of(path):
            if scene and not geotiff.is_grey(path):
                text = f"{path}: has {len(found)} pages of several bands each; save every page as a file of its own"
                raise Unusable(text, "format")
            return Source(("image", path), lambda: pages.open_pages(path, "image", found, parts))
        if scene or (_asked(pair, parts) and geotiff.is_raw(path, "image")):
            return Source(("image", path), lambda: geotiff.open_scene(path, "image", parts))
    if parts.tile and _larger(pair, parts.tile):
        return Source(("picture", pair.image_content or path), lambda: picture.open_image(pair))
    return None


def mask_source(pair: Listed, options: ReadOptions, image: Stack | None) -> Source | None:
    """Of the mask of an opened image; None for an ordinary mask of an ordinary picture. Raises as `image_source`."""
    parts, path = options.parts, pair.mask
    like = image.affine if image is not None and image.sliced else None
    if isinstance(image, nifti.Volume | Channels) and _unplaced(path, image):
        reason = "a mask without coordinates does not say how it lies in a NIfTI volume"
        raise Unusable(f"{path}: {reason}; save it as NIfTI with the affine of {pair.image.name}", "format")
    if pair.mask_content is None:
        if os.path.isdir(path):
            files = names.dicoms_in(path)
            if len(files) == 1:
                return _dicom_mask(files[0], image, options.choice)
            return Source(("mask", path), lambda: dicom.open_series(path, "mask")) if files else None
        if names.has_suffix(path, names.VOLUME_SUFFIXES):
            check_there(path, "mask")
        if names.has_suffix(path, names.NIFTI_SUFFIXES):
            turned = None if like is None else like.tobytes()
            return Source(("mask", path, turned), lambda: nifti.open_volume(path, "mask", parts, like))
        if names.has_suffix(path, names.ARRAY_SUFFIXES):
            return Source(("mask", path), lambda: arrays.open_array(path, "mask", parts))
        if names.is_dicom(path):
            return _dicom_mask(path, image, options.choice)
        if found := pages.pages_of(path):
            return Source(("mask", path), lambda: pages.open_pages(path, "mask", found, parts))
        if geotiff.is_raw(path, "mask") if image is not None else geotiff.hides_values(path):
            return Source(("mask", path), lambda: geotiff.open_scene(path, "mask", parts))
    if image is None:
        return None
    return Source(("drawing", pair.mask_content or path), lambda: picture.open_mask(pair, options.choice))


def _unplaced(path: Path, image: Stack) -> bool:
    """Whether a mask fits the slices of a volume without saying which way round."""
    picture_of_one = image.count == 1 and path.suffix.lower() in PICTURE_SUFFIXES
    return picture_of_one or names.has_suffix(path, names.ARRAY_SUFFIXES)


def _shape_of_mask(pair: Listed) -> tuple[int, ...] | None:
    """That of an array or a picture, by its header where it has one; None for others."""
    if pair.mask_content is not None:
        return None
    if names.has_suffix(pair.mask, names.ARRAY_SUFFIXES):
        return arrays.shape_of(pair.mask)
    if pair.mask.suffix.lower() not in PICTURE_SUFFIXES:
        return None
    try:
        if not pair.mask.is_file():
            return None  # a pipe would never end
        with open_picture_file(pair.mask) as image:
            return (image.height, image.width)
    except PICTURE_ERRORS:
        return None


def check_there(path: Path, kind: str) -> None:
    """Raises Unusable if there is no such file."""
    if not os.path.isfile(path):
        read_bytes(path, kind)


def _dicom_mask(path: Path, image: Stack | None, choice: MaskChoice) -> Source:
    header = dicom_header.read_dataset(path, "mask", stop_before_pixels=True, specific_tags=["SOPClassUID"])
    kind = header.get("SOPClassUID")
    if kind not in (dicom_header.SEGMENTATION, dicom_header.CONTOURS):
        series, chosen = dicom.open_file(path, "mask")
        return Source(("mask", path), lambda: series, chosen)
    if image is None:
        word = "a DICOM-SEG belongs" if kind == dicom_header.SEGMENTATION else "contours (RTSTRUCT) belong"
        raise Unusable(f"{path}: {word} to a folder of DICOM slices, not to a picture", "format")
    if kind == dicom_header.SEGMENTATION:
        return Source(("mask", path, id(image)), lambda: dicom_seg.open_segments(path, image))
    return Source(("mask", path, id(image)), lambda: dicom_contours.open_contours(path, image, choice))


def _asked(pair: Listed, parts: PartOptions) -> bool:
    """Whether the user wants more of a picture than what everybody sees in it."""
    return bool(parts.bands or parts.window) or (parts.tile is not None and _larger(pair, parts.tile))


def _larger(pair: Listed, tile: int) -> bool:
    """Whether a picture is to be cut. Reads its header only."""
    if pair.image_content is None:
        try:
            with open_picture_file(pair.image) as image:
                return max(image.size) > tile
        except Image.DecompressionBombError:
            return True
        except PICTURE_ERRORS:
            return False  # opening it says what is wrong
    return max(picture.open_image(pair).size) > tile


def pictures_apart(pair: Listed) -> bool:
    """Whether two ordinary pictures say that they lie at different places on earth."""
    if pair.image_content is not None or pair.mask_content is not None:
        return False
    image, mask = geotiff.place_of(pair.image), geotiff.place_of(pair.mask)
    return image is not None and mask is not None and image.size == mask.size and not same_place(image, mask)


def same_place(image: Stack, mask: Stack) -> bool:
    """Whether every corner of a mask lies within half a pixel of the same corner of its image, as far as both say."""
    if image.affine is None or mask.affine is None:
        return True
    if image.space and mask.space and image.space != mask.space:
        return False
    height, width = image.size
    corners = np.array(
        [[x, y, z, 1] for x in (0, width - 1) for y in (0, height - 1) for z in (0, image.count - 1)], np.float64
    )
    away = corners @ (image.affine - mask.affine).T
    steps = np.linalg.norm(image.affine[:3, :3], axis=0)
    return bool(np.abs(away[:, :3]).max() <= steps[steps > 0].min() / 2)
