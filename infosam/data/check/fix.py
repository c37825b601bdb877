"""Writes a cleaned copy of a source: upright 8-bit RGB images, masks of 0 and 255, plain names. The source stays."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infosam.data.check.findings import FINDINGS_NAME, Finding, write_findings
from infosam.data.check.run import Report
from infosam.data.masks import Unusable
from infosam.data.pairs import Labels, Listed
from infosam.data.pixels import (
    PICTURE_ERRORS,
    Picture,
    mask_png,
    open_both,
    open_picture,
    open_picture_file,
    png,
    read_bytes,
)
from infosam.data.staging import put_in_place, staged
from infosam.errors import DataError

LIST_NAME = "list.csv"
PLAIN_MODES = ("RGB", "L", "1", "P")
KEPT_FORMATS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}


@dataclass(frozen=True)
class Fixed:
    """What came of a cleaned copy."""

    written: int
    left_out: int
    findings: tuple[Finding, ...]  # those of the report, with what was mended


def write_fixed(report: Report, out: Path, progress: Callable[[int, int], None] | None = None) -> Fixed:
    """Writes images/, masks/, list.csv and findings.csv into a new folder, completely or not at all.

    Rows with errors that cannot be mended are left out; of a picture in several splits only the row in the split that
    is scored last stays. Raises DataError if `out` holds anything, or nothing could be written."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise DataError(f"--fix {out}: already exists; choose a new folder for the cleaned copy")
    listed = report.listing.listed
    dropped = _doubles(report)
    with_splits = all(pair.split for pair in listed)
    done: dict[int, bool] = {}
    with staged(out) as folder:
        (folder / "images").mkdir()
        (folder / "masks").mkdir()
        with (folder / LIST_NAME).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "group", *(["split"] * with_splits)])
            for position, pair in enumerate(listed):
                names = None if position in dropped else _write(folder, position, pair, report)
                done[position] = names is not None
                if names is not None:
                    writer.writerow([*names, pair.group or "", *([pair.split] if with_splits else [])])
                if progress:
                    progress(position + 1, len(listed))
        if not any(done.values()):
            raise DataError(f"{report.source}: no row could be mended, so there is no cleaned copy")
        findings = tuple(replace(one, mended=_mended(one, done, dropped)) for one in report.findings)
        write_findings(folder / FINDINGS_NAME, findings)
        put_in_place(folder, out)
    written = sum(done.values())
    return Fixed(written=written, left_out=len(listed) - written, findings=findings)


def _mended(finding: Finding, done: dict[int, bool], dropped: set[int]) -> bool:
    if finding.kind.name == "duplicate":
        return True
    return finding.kind.fix and finding.pair is not None and done[finding.pair] and finding.pair not in dropped


def _doubles(report: Report) -> set[int]:
    """Rows of pictures that are in several splits, except those in test, else in val: what is scored stays. Where
    splits will be drawn, all rows but those of the first of equal pictures."""
    order = {None: 0, "train": 0, "val": 1, "test": 2}
    kept: dict[bytes, Listed] = {}
    rows = [*zip(report.listing.listed, report.facts, strict=True)]
    for pair, facts in rows:
        if facts.sha256 not in kept or order[kept[facts.sha256].split] < order[pair.split]:
            kept[facts.sha256] = pair
    return {
        position
        for position, (pair, facts) in enumerate(rows)
        if facts.sha256
        and (order[pair.split] < order[kept[facts.sha256].split])
        | (pair.split is None and pair.image != kept[facts.sha256].image)
    }


def _write(folder: Path, position: int, pair: Listed, report: Report) -> tuple[str, str] | None:
    """Names of the written image and mask, None if the pair cannot be mended."""
    facts = report.facts[position]
    if any(finding == "blank" for finding, _ in facts.found):
        return None
    try:
        try:
            picture, drawing = open_both(pair, report.options.choice)
            mask = np.logical_or.reduce(drawing.masks)
        except Unusable as problem:
            if problem.kind != "mask-smeared":
                return None
            picture, mask = open_picture(pair), _thresholded(pair)
            if mask.shape != picture.rgb.shape[:2]:
                return None
    except Unusable:
        return None
    content, ending = _clean(picture)
    stem = f"{position:06}_{re.sub(r'[^A-Za-z0-9]+', '_', pair.image.stem).strip('_')[:80]}"
    image, label = f"images/{stem}{ending}", f"masks/{stem}.png"
    (folder / image).write_bytes(content)
    (folder / label).write_bytes(mask_png(mask))
    return image, label


def _clean(picture: Picture) -> tuple[bytes, str]:
    """The file as it is where nothing has to be mended, else a PNG."""
    ending = next((ending for head, ending in KEPT_FORMATS.items() if picture.source.startswith(head)), None)
    if ending and picture.mode in PLAIN_MODES and not picture.transparent and not picture.rotated:
        return picture.source, ending
    return png(Image.fromarray(picture.rgb)), ".png"


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
