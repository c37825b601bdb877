"""`infosam cluster import`: `infosam data import` by the machines of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infosam.data.console import progress, show_card, show_notes
from infosam.data.source_options import (
    AxisOption,
    BandsOption,
    Classes,
    Group,
    ImageColumn,
    Instances,
    MaskColumn,
    OverlapOption,
    SlicesOption,
    Source,
    TileOption,
    WindowOption,
    part_options,
)

IMPORT_HELP = """Import a data set larger than one machine's memory or patience, opening its files on all machines.

Takes SRC and makes the same data set as [bold]infosam data import[/bold], which says what is understood; every machine
must see SRC under the same path. Rows are written here, in order and in constant memory.

Example: infosam cluster import /mnt/infosam/photos --domain polyp --out /mnt/infosam/polyp --workers 32"""


def import_command(
    source: Source,
    domain: Annotated[str, typer.Option(help="Name of the domain, such as polyp; champions are found by it.")],
    out: Annotated[Path, typer.Option(help="New folder for the data set.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes that open files.")] = 1,
    cpus: Annotated[float, typer.Option(min=0.1, help="Cores that a process takes.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Draws splits that SRC lacks.")] = 0,
    classes: Classes = None,
    instances: Instances = False,
    group: Group = None,
    stratify: Annotated[
        bool, typer.Option("--stratify", help="Drawn splits get small and large objects alike.")
    ] = False,
    new_splits: Annotated[bool, typer.Option("--new-splits", help="Forget the splits of SRC and draw all.")] = False,
    image_column: ImageColumn = "image",
    mask_column: MaskColumn = "label",
    bands: BandsOption = None,
    window: WindowOption = None,
    axis: AxisOption = "auto",
    slices: SlicesOption = "labelled",
    tile: TileOption = None,
    overlap: OverlapOption = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another data set at --out.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Keep images whose mask is empty.")] = False,
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of the head; default: RAY_ADDRESS, else this machine.")
    ] = None,
) -> None:
    """Imports with progress, then says what is in the data set."""
    from cluster.importing import ClusterOpener
    from infosam.data.importing import import_dataset
    from infosam.data.manifest import Splitting
    from infosam.data.pairs import MaskChoice, ReadOptions
    from tune.resources import SETTINGS, environment, ray_session

    messages = Console(stderr=True)
    choice = MaskChoice(classes=tuple(classes or ()), instances=instances)
    parts = part_options(bands, window, axis, slices, tile, overlap)
    with environment(SETTINGS), ray_session(address), progress(messages, "Checking and storing") as bar:
        card = import_dataset(
            source.absolute(),
            domain=domain,
            out=out,
            options=ReadOptions(choice=choice, parts=parts, image_column=image_column, mask_column=mask_column),
            splitting=Splitting(seed=seed, group=group, stratify=stratify, anew=new_splits),
            progress=bar,
            overwrite=overwrite,
            allow_empty=allow_empty,
            opener=ClusterOpener(workers=workers, cpus_per_worker=cpus),
        )
    show_notes(messages, card.notes)
    show_card(Console(), card, done="Written to" if card.written else "Already imported, nothing to do:")
