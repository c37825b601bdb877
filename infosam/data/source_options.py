"""Arguments of the commands that read a source of images and masks: their help, and what may be said."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from infosam.data.pairs import MaskChoice, PartOptions, ReadOptions
from infosam.errors import ConfigError

MIN_TILE_PX = 16
Axis = Literal["auto", "axial", "coronal", "sagittal"]
Slices = Literal["labelled", "all"]

Source = Annotated[Path, typer.Argument(metavar="SRC", help="Images and masks, in any layout of docs/data.md.")]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class", help="Value, colour '#rrggbb' or COCO category that is the object; repeat to unite several."
    ),
]
Instances = Annotated[bool, typer.Option("--instances", help="One row per object instead of one per mask or image.")]
ImageColumn = Annotated[str, typer.Option(help="Column of the images in a list.")]
MaskColumn = Annotated[str, typer.Option(help="Column of the masks in a list.")]
ImagesPattern = Annotated[
    str | None,
    typer.Option(
        "--images",
        metavar="PATTERN",
        help="Where images lie below SRC, if that is not found: 'SPLIT/images/NAME.jpg', with NAME for what image and "
        "mask have in common, SPLIT for train, val or test, * for any text.",
    ),
]
MasksPattern = Annotated[
    str | None, typer.Option("--masks", metavar="PATTERN", help="Where their masks lie: 'SPLIT/labels/NAME_seg.png'.")
]
Group = Annotated[
    str | None,
    typer.Option(help="Column, or pattern over image paths such as 'patient(\\d+)': a group is never in two splits."),
]

Domain = Annotated[str, typer.Option(help="Name of the domain, such as polyp; champions are found by it.")]
NewSet = Annotated[str, typer.Option(metavar="DIR|URL", help="New folder, or s3://bucket/set, for the data set.")]
SplitSeed = Annotated[int, typer.Option(min=0, help="Draws splits that SRC lacks.")]
Stratify = Annotated[bool, typer.Option("--stratify", help="Drawn splits get small and large objects alike.")]
NewSplits = Annotated[bool, typer.Option("--new-splits", help="Forget the splits of SRC and draw all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another data set at --out.")]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Keep images whose mask is empty.")]

BandsOption = Annotated[
    str | None, typer.Option("--bands", metavar="R,G,B", help="Bands shown, from 1: three, or one for grey.")
]
WindowOption = Annotated[
    str | None,
    typer.Option("--window", metavar="CENTRE,WIDTH", help="Values shown, such as 40,400 for soft tissue in CT."),
]
AxisOption = Annotated[Axis, typer.Option("--axis", help="Plane of the slices of NIfTI volumes.")]
SlicesOption = Annotated[Slices, typer.Option("--slices", help="Slices and tiles kept: with an object, or all.")]
TileOption = Annotated[
    int | None, typer.Option("--tile", metavar="PX", help="Cut scenes and pictures larger than this into tiles.")
]
OverlapOption = Annotated[int, typer.Option("--overlap", metavar="PX", help="What neighbouring tiles share.")]


def read_options(
    classes: list[str] | None,
    parts: PartOptions,
    columns: tuple[str, str],
    patterns: tuple[str | None, str | None],
    *,
    instances: bool,
) -> ReadOptions:
    """What the user said of a source; of columns and patterns that of the images comes first."""
    return ReadOptions(
        choice=MaskChoice(classes=tuple(classes or ()), instances=instances),
        parts=parts,
        image_column=columns[0],
        mask_column=columns[1],
        images=patterns[0],
        masks=patterns[1],
    )


def part_options(
    bands: str | None, window: str | None, axis: Axis, slices: Slices, tile: int | None, overlap: int
) -> PartOptions:
    """What the user said. Raises ConfigError with the option, its value and what is expected."""
    if tile is not None and tile < MIN_TILE_PX:
        raise ConfigError(f"--tile {tile}: a tile has at least {MIN_TILE_PX} px a side; 1024 suits SAM")
    if overlap and tile is None:
        raise ConfigError(f"--overlap {overlap}: only tiles overlap; say --tile as well")
    if overlap < 0 or (tile is not None and overlap > tile // 2):
        raise ConfigError(f"--overlap {overlap}: expected 0 to half a tile, {(tile or 0) // 2}")
    return PartOptions(
        bands=() if bands is None else _bands(bands),
        window=None if window is None else _window(window),
        axis=axis,
        slices=slices,
        tile=tile,
        overlap=overlap,
    )


def _bands(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if len(words) not in (1, 3) or not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise ConfigError(f"--bands {text!r}: expected three numbers from 1, such as 4,3,2, or one for grey")
    return tuple(map(int, words))


def _window(text: str) -> tuple[float, float]:
    try:
        centre, width = (float(word) for word in text.split(","))
    except ValueError:
        centre = width = 0.0
    if not 0 < width < float("inf") or not abs(centre) < float("inf"):
        raise ConfigError(f"--window {text!r}: expected centre and width, such as 40,400; the width is above 0")
    return centre, width
