"""The report of a check as a table on screen and as an HTML page with thumbnails."""

from __future__ import annotations

import base64
import io
import os
import uuid
from importlib.resources import files
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infosam.data.check.findings import COLUMNS, FINDINGS_NAME, SEVERITIES, Finding, write_findings
from infosam.data.check.run import Report, by_kind
from infosam.data.masks import Unusable
from infosam.data.pairs import Listed, ReadOptions
from infosam.data.pixels import open_both, open_picture
from infosam.errors import DataError, printable
from infosam.overlay import draw_overlay

STYLES = {"error": "red", "warning": "yellow", "note": "dim"}
PAGE_SUFFIXES = (".html", ".htm")
SHOWN_PER_KIND = 200  # rows on the page
PICTURES_PER_KIND = 12
THUMBNAIL_PX = 160


def show_report(console: Console, report: Report) -> None:
    """One line per kind of finding: how many, how many of them mended, the first, why it matters, and what to do."""
    title = Text(printable(f"{len(report.listing.listed):,} pairs in {report.source}"))
    table = Table("", "finding", title=title, title_justify="left")
    mending = any(one.mended or one.left_out for one in report.findings)
    for heading in ("rows", *(["mended", "left out"] if mending else [])):
        table.add_column(heading, justify="right")
    for heading in ("the first of them", "why it matters", "what to do"):
        table.add_column(heading, overflow="fold")
    for name, found in by_kind(report.findings).items():
        kind = found[0].kind
        cure = kind.cure + " (or --fix)" * kind.fix
        severity = Text(kind.severity, style=STYLES[kind.severity])
        counted = (sum(one.mended for one in found), sum(one.left_out for one in found)) if mending else ()
        figures = f"{len(found):,}", *(f"{amount:,}" if amount else "" for amount in counted)
        table.add_row(severity, name, *figures, Text(printable(_placed(found[0]))), Text(kind.why), Text(cure))
    if report.findings:
        console.print(table)
    console.print(Text(f"{len(report.listing.listed):,} pairs: {counts(report)}"), soft_wrap=True)


def _placed(finding: Finding) -> str:
    """What was found, with its row unless that is in the words."""
    return finding.what if finding.row in finding.what else f"{finding.row}: {finding.what}"


def counts(report: Report) -> str:
    """Number of findings of each weight, in words."""
    words = []
    for severity in SEVERITIES:
        number = report.count(severity)
        words.append(f"{number:,} {severity}{'s' * (number != 1)}")
    return ", ".join(words)


def check_place(out: Path) -> None:
    """Raises DataError if a page cannot be written to `out`, or a file of the user would be lost. Cheap, so it is asked
    before anything is looked at."""
    if out.is_dir():
        raise DataError(f"--out {out}: is a folder; give the name of the page, such as {out / 'check.html'}")
    if out.suffix.lower() not in PAGE_SUFFIXES:
        raise DataError(f"--out {out}: a page ends in .html; call it {out.with_suffix('.html')}")
    if not out.parent.is_dir():
        raise DataError(f"--out {out}: there is no folder {out.parent}; make it, or choose another place")
    beside = out.with_name(FINDINGS_NAME)
    try:
        with beside.open(encoding="utf-8", errors="replace") as file:
            ours = file.readline().startswith(",".join(COLUMNS[:7]))
    except FileNotFoundError:
        return
    except OSError:
        ours = False
    if not ours:
        raise DataError(f"--out {out}: {beside} is there and no list of a check; write the page into another folder")


def write_page(report: Report, out: Path) -> None:
    """Writes the page, and beside it `findings.csv` with all findings, each completely or not at all. Raises DataError
    if they cannot be written, or `out` is a place of `check_place`."""
    check_place(out)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        write_findings(partial, report.findings)
        os.replace(partial, out.with_name(FINDINGS_NAME))
        partial.write_text(render_page(report), encoding="utf-8", errors="backslashreplace")
        os.replace(partial, out)
    except OSError as error:
        raise DataError(f"--out {out}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        partial.unlink(missing_ok=True)


def render_page(report: Report) -> str:
    """The page as HTML without references to other files; all text from data is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((files("infosam") / "assets" / "check.html.jinja").read_text(encoding="utf-8"))
    drawn: dict[int, str | None] = {}  # a pair may have several kinds of findings
    sections = [_section(found, report, drawn) for found in by_kind(report.findings).values()]
    return template.render(
        title=printable(f"Check of {report.source.name or report.source.resolve().name}"),
        pairs=f"{len(report.listing.listed):,}",
        counts=counts(report),
        errors=report.count("error"),
        mending=any(one.mended or one.left_out for one in report.findings),
        sections=sections,
        all_in=FINDINGS_NAME,
    )


def _section(found: list[Finding], report: Report, drawn: dict[int, str | None]) -> dict[str, object]:
    kind = found[0].kind
    rows = []
    for number, finding in enumerate(found[:SHOWN_PER_KIND]):
        places = (finding.pair, finding.other) if number < PICTURES_PER_KIND else ()
        for place in places:
            if place is not None and place not in drawn:
                drawn[place] = thumbnail(report.listing.listed[place], report.options)
        pictures = [drawn[place] if place is not None else None for place in places] or [None, None]
        what = finding.what.removeprefix(f"{finding.file}: ")  # the file stands beside it
        words = {"row": printable(finding.row), "file": printable(finding.file), "what": printable(what)}
        told = {"mended": finding.mended, "left_out": finding.left_out}
        rows.append({**words, **told, "picture": pictures[0], "other": pictures[1]})
    return {
        **{"name": kind.name, "severity": kind.severity, "why": kind.why, "cure": kind.cure, "fix": kind.fix},
        "amount": f"{len(found):,}",
        "mended": f"{sum(one.mended for one in found):,}",
        "left_out": f"{sum(one.left_out for one in found):,}",
        "rows": rows,
        "more": f"{len(found) - len(rows):,}" if len(found) > len(rows) else "",
    }


def thumbnail(pair: Listed, options: ReadOptions) -> str | None:
    """The image with its mask over it as text that a page can hold; without the mask where that cannot be read, None
    where the image cannot."""
    try:
        picture, drawing = open_both(pair, options.choice)
        mask = np.logical_or.reduce(drawing.masks)
    except Unusable:
        try:
            picture = open_picture(pair)
            mask = np.zeros(picture.rgb.shape[:2], dtype=np.bool_)
        except Unusable:
            return None
    small = overlay_of(picture.rgb, mask, THUMBNAIL_PX)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def overlay_of(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], side_px: int) -> Image.Image:
    """A picture (H, W, 3) with its mask (H, W) drawn over it, at most `side_px` on its longest side. Small objects
    stay visible: a pixel of the mask is drawn if any of it is object."""
    scale = min(1.0, side_px / max(mask.shape))
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    small = Image.fromarray(rgb).resize(size, Image.Resampling.BOX)
    cover = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return draw_overlay(np.asarray(small), np.asarray(cover) > 0)
