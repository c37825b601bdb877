"""What can be wrong with data: each kind with its weight, why it matters, and how to mend it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning", "note"]  # stops an import; makes results doubtful; is handled, but to be known
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

FINDINGS_NAME = "findings.csv"
COLUMNS = ("severity", "finding", "row", "file", "what", "why", "cure", "mended", "left_out")


@dataclass(frozen=True)
class Kind:
    """One thing that can be wrong."""

    name: str
    severity: Severity
    why: str
    cure: str
    fix: bool = False  # whether --fix mends it


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: Kind
    row: str  # where it is listed; empty for the whole set
    file: str
    what: str
    pair: int | None = None  # position of the pair in the source, for a thumbnail
    other: int | None = None  # position of the pair that it is like
    mended: bool = False
    left_out: bool = False  # the cleaned copy does not have its row


_ALL = (
    Kind("listing", "error", "a row that cannot be read as an image and its mask", "see the message"),
    Kind(
        "leak",
        "error",
        "scores would be of images or patients trained on",
        "keep each image and group in one split, or draw new ones: --new-splits",
        fix=True,
    ),
    Kind("nothing", "error", "there is not enough to learn from", "see the message"),
    Kind("missing", "error", "the file cannot be opened", "add it, correct its name, or remove the row"),
    Kind("format", "error", "not a picture", "save it as PNG or JPEG"),
    Kind("damaged", "error", "the file is cut short or broken", "copy or export it again"),
    Kind("bomb", "error", "opening it would fill the memory", "cut it into tiles first"),
    Kind(
        "dark",
        "error",
        "the lower of its 16 bits would be dropped, and with them the picture",
        "save 8 bits, stretched",
    ),
    Kind("size", "error", "the mask lies elsewhere than the object", "export the mask at the size of the image"),
    Kind("pages", "error", "all pictures but the first would be lost", "one file for each, or one npy (N, H, W)"),
    Kind("size-rotated", "error", "the mask was drawn on the unrotated picture", "rotate the mask", fix=True),
    Kind("mask-alpha", "error", "a transparent pixel is neither object nor background", "save the mask without alpha"),
    Kind("mask-smeared", "error", "JPEG changes values at edges", "threshold at 127, save as PNG", fix=True),
    Kind("mask-values", "error", "which value is the object is not known", "choose with --class, or one mask each"),
    Kind("blank", "error", "nothing to learn from, and nothing to prompt", "draw it, remove it, or --allow-empty"),
    Kind("kin", "warning", "scores may be of patients or scenes trained on", "keep each in one split with --group"),
    Kind(
        "faint",
        "warning",
        "nothing to be seen: a few bright pixels, or a window of the scanner, set the range",
        "choose the range with --window (TIFF, volumes), or clip the values and save 8 bits",
    ),
    Kind("full", "warning", "the whole picture is the object: often a wrong export", "look at the mask"),
    Kind("inverted", "warning", "the border is the object: colours may be swapped", "look at it; swap 0 and 255"),
    Kind("exif-mask", "warning", "the mask may be upside down", "look at it; save the picture upright, draw on that"),
    Kind("own-mask", "warning", "the answer is in the picture: scores would mean nothing", "give the photograph"),
    Kind("thin", "warning", "most of it is thinner than a pixel of the model's mask", "cut into tiles: --tile 1024"),
    Kind("duplicate", "warning", "the same picture in two splits makes scores too good", "keep one", fix=True),
    Kind("near-duplicate", "warning", "almost the same picture in two splits", "group them: --group, --new-splits"),
    Kind("absent", "note", "it has no pixel of --class: an import leaves it out", "nothing, or choose another class"),
    Kind("repeated", "note", "the same picture twice in a split counts twice", "remove one, if it was not meant"),
    Kind("no-split", "note", "a split is missing and will be drawn from train", "give it, or let it be drawn"),
    Kind("no-train", "warning", "nothing to train on", "name the split train, or use the set for scoring only"),
    Kind("imbalance", "warning", "objects cover so little that a blank answer looks good", "crop, or cut into tiles"),
    Kind(
        "classes", "warning", "masks of several classes would be taken as one object", "--class, or one value for all"
    ),
    Kind("split-shift", "warning", "one split has much larger objects than train", "--new-splits --stratify"),
    Kind("huge", "warning", "each such image needs much memory and time to decode", "shrink it, or --tile 1024"),
    Kind("mask-jpeg", "warning", "JPEG may have moved the edge of the object", "export as PNG", fix=True),
    Kind("name", "warning", "control characters or spaces at the ends break other tools", "rename", fix=True),
    Kind(
        "sixteen-bit",
        "note",
        "stretched to 0..255 from each file's own range (colours: divided by 256)",
        "export 8 bit",
        fix=True,
    ),
    Kind("cmyk", "note", "colours for print, turned into RGB", "save as RGB", fix=True),
    Kind("alpha", "note", "transparent parts are laid over black", "save without alpha", fix=True),
    Kind("exif", "note", "the camera's note to turn the picture is followed", "save it upright", fix=True),
    Kind("mask-palette", "note", "the index counts, not the colour", "save as grey 0 and 255", fix=True),
    Kind(
        "mask-levels", "note", "values other than 0 and 255, read as background and object", "save as 0/255", fix=True
    ),
    Kind("mask-void", "note", '255 is read as "ignore", as label maps have it, not as an object', "--class, if it is"),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}


def write_findings(path: Path, findings: Sequence[Finding]) -> None:
    """All findings, however many, as a CSV. Raises OSError."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for one in findings:
            kind = one.kind
            told = [one.row, one.file, one.what, kind.why, kind.cure, one.mended, one.left_out]
            writer.writerow([kind.severity, kind.name, *told])
