"""The commands `infosam data append` and `infosam data resplit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infosam.data.card import Split
from infosam.data.console import progress, show_card, show_notes
from infosam.data.source_options import (
    AllowEmpty,
    AxisOption,
    BandsOption,
    Classes,
    Group,
    ImageColumn,
    ImagesPattern,
    Instances,
    MaskColumn,
    MasksPattern,
    OverlapOption,
    SlicesOption,
    Source,
    SplitSeed,
    Stratify,
    TileOption,
    WindowOption,
    part_options,
    read_options,
)


def add_to(app: typer.Typer) -> None:
    """Adds both to `infosam data`."""
    app.command("append")(append_command)
    app.command("resplit")(resplit_command)


def append_command(
    source: Source,
    to: Annotated[Path, typer.Option(help="Data set that they are added to.")],
    seed: SplitSeed = 0,
    split: Annotated[Split | None, typer.Option(help="Split of new images for which SRC says none.")] = None,
    classes: Classes = None,
    instances: Instances = False,
    group: Group = None,
    stratify: Stratify = False,
    images: ImagesPattern = None,
    masks: MasksPattern = None,
    image_column: ImageColumn = "image",
    mask_column: MaskColumn = "label",
    bands: BandsOption = None,
    window: WindowOption = None,
    axis: AxisOption = "auto",
    slices: SlicesOption = "labelled",
    tile: TileOption = None,
    overlap: OverlapOption = 0,
    allow_empty: AllowEmpty = False,
) -> None:
    """Check new images and masks and add them to a data set; what it holds is not written again.

    Images and groups that it knows stay in their split, rows it holds already are skipped.

    Example: infosam data append more-photos/ --to data/polyp
    """
    from infosam.data.growing import append
    from infosam.data.manifest import Splitting

    messages = Console(stderr=True)
    parts = part_options(bands, window, axis, slices, tile, overlap)
    options = read_options(classes, parts, (image_column, mask_column), (images, masks), instances=instances)
    with progress(messages, "Checking and storing") as bar:
        grown = append(
            source,
            to,
            options=options,
            splitting=Splitting(seed=seed, group=group, stratify=stratify),
            split=split,
            allow_empty=allow_empty,
            progress=bar,
        )
    show_notes(messages, grown.notes)
    skipped = f", {grown.skipped:,} that were in it already skipped" if grown.skipped else ""
    show_card(Console(), grown.card, done=f"{grown.added:,} rows added{skipped}:")


def resplit_command(
    data: Annotated[Path, typer.Argument(help="Data set whose splits are drawn anew.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other splits.")] = 0,
    group: Annotated[
        str | None, typer.Option(help="Pattern over image paths such as 'patient(\\d+)', instead of the groups it has.")
    ] = None,
    stratify: Annotated[bool, typer.Option("--stratify", help="Splits get small and large objects alike.")] = False,
) -> None:
    """Draw train, val and test of a data set anew, without writing its pictures again.

    A group or picture is never in two splits. Results from before belong to the old splits (another digest).

    Example: infosam data resplit data/polyp --seed 1 --group 'patient(\\d+)'
    """
    from infosam.data.growing import resplit

    grown = resplit(data, seed=seed, group=group, stratify=stratify)
    show_notes(Console(stderr=True), grown.notes)
    show_card(Console(), grown.card, done="Split anew:" if grown.card.written else "Split so already:")
