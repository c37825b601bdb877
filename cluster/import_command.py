"""`infosam cluster import`: `infosam data import` by the machines of a cluster."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from infosam.data.console import progress, sent, show_card, show_notes
from infosam.data.source_options import (
    AllowEmpty,
    AxisOption,
    BandsOption,
    Classes,
    Domain,
    Group,
    ImageColumn,
    ImagesPattern,
    Instances,
    MaskColumn,
    MasksPattern,
    NewSet,
    NewSplits,
    OverlapOption,
    Overwrite,
    SlicesOption,
    Source,
    SplitSeed,
    Stratify,
    TileOption,
    WindowOption,
    part_options,
    read_options,
)

IMPORT_HELP = """Import a data set larger than one machine's memory or patience, opening its files on all machines.

Takes SRC and makes the same data set as [bold]infosam data import[/bold], which says what is understood; every machine
must see SRC under the same path. Rows are written here, in order and in constant memory.

Example: infosam cluster import /mnt/infosam/photos --domain polyp --out /mnt/infosam/polyp --workers 32"""


def import_command(
    source: Source,
    domain: Domain,
    out: NewSet,
    workers: Annotated[int, typer.Option(min=1, help="Processes that open files.")] = 1,
    cpus: Annotated[float, typer.Option(min=0.1, help="Cores that a process takes.")] = 1.0,
    seed: SplitSeed = 0,
    classes: Classes = None,
    instances: Instances = False,
    group: Group = None,
    stratify: Stratify = False,
    new_splits: NewSplits = False,
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
    overwrite: Overwrite = False,
    allow_empty: AllowEmpty = False,
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of the head; default: RAY_ADDRESS, else this machine.")
    ] = None,
) -> None:
    """Imports with progress, then says what is in the data set."""
    from cluster.importing import ClusterOpener
    from infosam.data.importing import import_dataset
    from infosam.data.manifest import Splitting
    from infosam.data.pushing import placed
    from tune.resources import SETTINGS, environment, ray_session

    messages = Console(stderr=True)
    parts = part_options(bands, window, axis, slices, tile, overlap)
    options = read_options(classes, parts, (image_column, mask_column), (images, masks), instances=instances)
    with (
        placed(out, sent(messages, out), overwrite=overwrite) as folder,
        environment(SETTINGS),
        ray_session(address),
        progress(messages, "Checking and storing") as bar,
    ):
        card = import_dataset(
            source.absolute(),
            domain=domain,
            out=folder,
            options=options,
            splitting=Splitting(seed=seed, group=group, stratify=stratify, anew=new_splits),
            progress=bar,
            overwrite=overwrite,
            allow_empty=allow_empty,
            opener=ClusterOpener(workers=workers, cpus_per_worker=cpus),
        )
    show_notes(messages, card.notes)
    show_card(Console(), card, done="Written to" if card.written else "Already imported, nothing to do:", place=out)
