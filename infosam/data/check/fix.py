"""Writes a cleaned copy of a source: upright 8-bit RGB images, masks of 0 and 255, plain names. The source stays."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from infosam.data.check.findings import FINDINGS_NAME, Finding, write_findings
from infosam.data.check.run import Report
from infosam.data.masks import Unusable
from infosam.data.pairs import Labels, Listed, MaskChoice
from infosam.data.pixels import (
    PICTURE_ERRORS,
    Picture,
    open_both,
    open_drawing,
    open_picture,
    open_picture_file,
    read_bytes,
)
from infosam.data.png import mask_png, png
from infosam.data.rgb import EXIF_ORIENTATION
from infosam.data.staging import put_in_place, staged
from infosam.errors import DataError

LIST_NAME = "list.csv"
PLAIN_MODES = ("RGB", "L", "1", "P")
KEPT_FORMATS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}
ROW_LEFT_OUT = ("duplicate", "leak")  # mended by leaving out a row, perhaps another one
ORDER = {None: 0, "train": 0, "val": 1, "test": 2}


@dataclass(frozen=True)
class Fixed:
    """What came of a cleaned copy."""

    written: int
    left_out: int
    findings: tuple[Finding, ...]  # those of the report, with what was mended


def check_place(source: Path, out: Path) -> None:
    """Raises DataError if a cleaned copy of `source` cannot be written to `out`. Cheap, so it is asked first."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise DataError(f"--fix {out}: already exists; choose a new folder for the cleaned copy")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"--fix {out}: lies in {source}, which is never touched; choose a folder outside of it")


def write_fixed(report: Report, out: Path, progress: Callable[[int, int], None] | None = None) -> Fixed:
    """Writes images/, masks/, list.csv and findings.csv into a new folder, completely or not at all.

    Rows with errors that cannot be mended are left out; of a picture or group in several splits only the rows in the
    split that is scored last stay. Raises DataError if `out` holds anything or lies in the source, or nothing could be
    written."""
    check_place(report.source, out)
    listed = report.listing.listed
    dropped = _surplus(report)
    with_splits = all(pair.split for pair in listed)
    done: dict[int, bool] = {}
    with staged(out) as folder:
        copy = _Copy(folder, report)
        with (folder / LIST_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "group", *(["split"] * with_splits)])
            for position, pair in enumerate(listed):
                names = None if position in dropped else copy.write(position, pair)
                done[position] = names is not None
                if names is not None:
                    writer.writerow([*names, pair.group or "", *([pair.split] if with_splits else [])])
                if progress:
                    progress(position + 1, len(listed))
        if not any(done.values()):
            raise DataError(f"{report.source}: no row could be mended, so there is no cleaned copy")
        findings = tuple(_told(one, done) for one in report.findings)
        write_findings(folder / FINDINGS_NAME, findings)
        put_in_place(folder, out)
    written = sum(done.values())
    return Fixed(written=written, left_out=len(listed) - written, findings=findings)


def _told(finding: Finding, done: dict[int, bool]) -> Finding:
    written = finding.pair is None or done[finding.pair]
    mended = finding.kind.name in ROW_LEFT_OUT or (finding.kind.fix and finding.pair is not None and written)
    return replace(finding, mended=mended, left_out=not written)


def _surplus(report: Report) -> set[int]:
    """Rows of pictures or groups that are in several splits, except those in test, else in val: what is scored stays.
    Rows that give an image another group than its first one. Where splits will be drawn, all rows but those of the
    first of equal pictures."""
    rows = [*zip(report.listing.listed, report.facts, strict=True)]
    last: dict[object, int] = defaultdict(int)
    first: dict[bytes, Path] = {}
    groups: dict[Path, str | None] = {}
    for pair, facts in rows:
        for thing in _kept_together(pair, facts.sha256):
            last[thing] = max(last[thing], ORDER[pair.split])
        first.setdefault(facts.sha256, pair.image)
        groups.setdefault(pair.image, pair.group)
    return {
        position
        for position, (pair, facts) in enumerate(rows)
        if any(ORDER[pair.split] < last[thing] for thing in _kept_together(pair, facts.sha256))
        or pair.group != groups[pair.image]
        or (facts.sha256 and pair.split is None and pair.image != first[facts.sha256])
    }


def _kept_together(pair: Listed, sha256: bytes) -> Iterator[object]:
    """What may be in one split only."""
    yield pair.image
    if pair.group:
        yield pair.group
    if sha256:
        yield sha256


class _Copy:
    """The files of a cleaned copy; an image with several masks is written once."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder, self._report = folder, report
        self._images: dict[tuple[Path, bytes], str] = {}
        for kind in ("images", "masks"):
            (folder / kind).mkdir()

    def write(self, position: int, pair: Listed) -> tuple[str, str] | None:
        """Names of the image and mask, None if the pair cannot be mended."""
        facts = self._report.facts[position]
        if any(kind in ("blank", "absent") for kind, _ in facts.found):
            return None
        try:
            picture, mask = self._opened(pair)
        except Unusable:
            return None
        stem = f"{position:06}_{re.sub(r'[^A-Za-z0-9]+', '_', pair.image.stem).strip('_')[:80]}"
        key = (pair.image, facts.sha256)
        if key not in self._images or not facts.sha256:
            content, ending = _clean(picture)
            self._images[key] = f"images/{stem}{ending}"
            (self._folder / self._images[key]).write_bytes(content)
        (self._folder / f"masks/{stem}.png").write_bytes(mask_png(mask))
        return self._images[key], f"masks/{stem}.png"

    def _opened(self, pair: Listed) -> tuple[Picture, NDArray[np.bool_]]:
        """Raises Unusable if the pair cannot be mended."""
        choice = self._report.options.choice
        try:
            picture, drawing = open_both(pair, choice)
            return picture, np.logical_or.reduce(drawing.masks)
        except Unusable as problem:
            if problem.kind == "size-rotated":
                return _turned(pair, open_picture(pair), problem, choice)
            if problem.kind != "mask-smeared":
                raise
            picture, mask = open_picture(pair), _thresholded(pair)
            if mask.shape != picture.rgb.shape[:2]:
                raise
            return picture, mask


def _clean(picture: Picture) -> tuple[bytes, str]:
    """The file as it is where nothing has to be mended, else a PNG."""
    ending = next((ending for head, ending in KEPT_FORMATS.items() if picture.source.startswith(head)), None)
    plain = picture.mode in PLAIN_MODES and not (picture.transparent or picture.rotated)
    if ending and plain:
        return picture.source, ending
    return png(Image.fromarray(picture.rgb)), ".png"


def _turned(pair: Listed, picture: Picture, problem: Unusable, choice: MaskChoice) -> tuple[Picture, NDArray[np.bool_]]:
    """The mask turned as its picture is: only that fits."""
    drawn = np.logical_or.reduce(open_drawing(pair, choice).masks)
    image = Image.fromarray(drawn.astype(np.uint8))
    image.getexif()[EXIF_ORIENTATION] = picture.orientation
    mask = np.asarray(ImageOps.exif_transpose(image), np.bool_)
    if mask.shape != picture.rgb.shape[:2]:
        raise problem
    return picture, mask


def _thresholded(pair: Listed) -> NDArray[np.bool_]:
    drawn = pair.mask_content() if pair.mask_content else read_bytes(pair.mask, "mask")
    if isinstance(drawn, np.ndarray):
        return drawn
    if isinstance(drawn, Labels):
        return np.asarray(drawn.values, np.float64) > 127
    try:
        with open_picture_file(BytesIO(drawn)) as image:
            return np.asarray(np.asarray(image.convert("L")) > 127, dtype=np.bool_)
    except PICTURE_ERRORS as error:
        raise Unusable(f"{pair.mask}: {error}") from error
