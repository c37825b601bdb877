"""The commands `infosam data ...`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infosam.data import fetch_commands, growing_commands, remote_commands
from infosam.data.card import Split
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
from infosam.errors import ConfigError, DataError

if TYPE_CHECKING:
    from infosam.data.check.run import Report
    from infosam.data.statistics import SplitStatistics

IMPORT_HELP = """Check images and masks and store them as one data set.

SRC is one of

- a folder with [bold]images/[/bold] and [bold]masks/[/bold] and equal file names, or names that differ by one rule
(a.jpg and a_mask.png), perhaps in train/, val/ and test/; or with both kinds side by side;

- one [bold]CSV, TSV or Parquet[/bold] with columns image,label and, if you like, split (train, val, test) and group
(patient, video), paths relative to the file; or a folder with train.csv, val.csv and test.csv;

- a [bold]COCO[/bold] JSON with polygons or run lengths, or a folder with one per split;

- a [bold]Hugging Face[/bold] data set on disk (Arrow or Parquet), or a data set of infosam;

- anything else, if [bold]--images and --masks[/bold] say where files lie: 'SPLIT/images/NAME.jpg' and
'SPLIT/gt/NAME_*.png'.

Images and masks are pictures, or [bold]GeoTIFF, NIfTI, DICOM[/bold] (a file, or a folder with one series), [bold]npy or
npz[/bold]: slices and tiles (--slices, --tile) become images of their own, and those of one scene, volume or patient
stay in one split.

Masks have two values, background 0 and object anything else, or --class says which value, colour or COCO category is
the object. An image may have several masks. Missing splits are drawn from train. Every file is opened; if one is bad,
all bad ones are listed and nothing is written.

Example: infosam data import photos/ --domain polyp --out data/polyp"""

CHECK_HELP = """Look for everything that makes masks wrong, scores too good, or training slow.

SRC is anything that `infosam data import` understands. Every image and mask is opened once, in parallel; nothing is
changed. With --out a page with a thumbnail of each finding is written, with --fix a cleaned copy to import instead.

Exit code 2 if there are errors (such data is not imported); warnings are counted and shown.

Example: infosam data check photos/ --out check.html"""

app = typer.Typer(help="Bring your own images and masks.", no_args_is_help=True, rich_markup_mode="rich")


def register(root: typer.Typer) -> None:
    """Adds `data` to the command `infosam`."""
    root.add_typer(app, name="data", rich_help_panel="Use")


@app.callback()
def _data() -> None:
    """Bring your own images and masks."""


@app.command("import", help=IMPORT_HELP)
def import_command(
    source: Source,
    domain: Domain,
    out: NewSet,
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
) -> None:
    """Imports with progress, then says what is in the data set."""
    from infosam.data.manifest import Splitting
    from infosam.data.pushing import placed
    from infosam.data.store import import_dataset  # takes seconds (torch, pyarrow), and every --help would pay them

    messages = Console(stderr=True)
    parts = part_options(bands, window, axis, slices, tile, overlap)
    options = read_options(classes, parts, (image_column, mask_column), (images, masks), instances=instances)
    with (
        placed(out, sent(messages, out), overwrite=overwrite) as folder,
        progress(messages, "Checking and storing") as bar,
    ):
        card = import_dataset(
            source,
            domain=domain,
            out=folder,
            options=options,
            splitting=Splitting(seed=seed, group=group, stratify=stratify, anew=new_splits),
            progress=bar,
            overwrite=overwrite,
            allow_empty=allow_empty,
        )
    show_notes(messages, card.notes)
    show_card(Console(), card, done="Written to" if card.written else "Already imported, nothing to do:", place=out)
    next_step = f"Use it with data={out}" if "://" in out else f"Before a sweep: infosam data check {out}"
    messages.print(Text(next_step), soft_wrap=True)


@app.command("check", help=CHECK_HELP)
def check_command(
    source: Source,
    classes: Classes = None,
    instances: Instances = False,
    group: Group = None,
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
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Empty masks are meant.")] = False,
    mask_px: Annotated[
        int, typer.Option(min=1, help="Longest side of the masks that the model computes; 256 for SAM.")
    ] = 256,
    out: Annotated[
        Path | None, typer.Option(help="Write a page with thumbnails to this HTML file, and findings.csv beside it.")
    ] = None,
    fix: Annotated[Path | None, typer.Option(help="Write a cleaned copy into this new folder.")] = None,
) -> None:
    """Checks with progress, shows what was found, and leaves with exit code 2 if there are errors."""
    from infosam.data.check.run import check_source

    messages = Console(stderr=True)
    parts = part_options(bands, window, axis, slices, tile, overlap)
    options = read_options(classes, parts, (image_column, mask_column), (images, masks), instances=instances)
    if fix is not None and instances:
        raise ConfigError(
            "--fix with --instances: a cleaned copy keeps one mask a row; mend first, import with --instances"
        )
    _check_places(source, out, fix)
    with progress(messages, "Checking") as bar:
        report = check_source(
            source, options, group=group, anew=new_splits, allow_empty=allow_empty, mask_px=mask_px, progress=bar
        )
    _tell(report, messages, out, fix)


def _check_places(source: Path, out: Path | None, fix: Path | None) -> None:
    """What cannot be written is said before the hours of a check. Raises DataError."""
    from infosam.data.check import fix as fixing
    from infosam.data.check import page

    if out is not None:
        page.check_place(out)
    if fix is not None:
        fixing.check_place(source, fix)


def _tell(report: Report, messages: Console, out: Path | None, fix: Path | None) -> None:
    """Table, page and cleaned copy. Raises DataError if the data, or its copy, cannot be imported."""
    from infosam.data.check import page
    from infosam.data.check.findings import FINDINGS_NAME
    from infosam.data.check.fix import write_fixed

    if fix is not None:
        with progress(messages, "Mending") as bar:
            fixed = write_fixed(report, fix, bar)
        report = replace(report, findings=fixed.findings)
    show_notes(messages, report.listing.notes)
    page.show_report(Console(), report)
    if out is not None:
        page.write_page(report, out)
        messages.print(Text(f"Page written to {out}, all findings to {out.with_name(FINDINGS_NAME)}"), soft_wrap=True)
    if fix is not None:
        told = f"{fixed.written:,} rows written to {fix}, {fixed.left_out:,} left out"
        text = f"{told}; next: infosam data check {fix / 'list.csv'}"
        messages.print(Text(text), soft_wrap=True)
        if short := [one.what for one in report.findings if one.kind.name == "nothing"]:
            raise DataError(f"{fix}: cannot be imported either: {short[0]}")
    elif report.count("error"):
        raise DataError(
            f"{report.source}: {page.counts(report)}; mend the errors, or let --fix DIR write a cleaned copy"
        )


@app.command("show")
def show_command(
    data: Annotated[Path, typer.Argument(help="Folder made by `infosam data import`.")],
    split: Annotated[Split, typer.Option(help="Split that is scored and drawn.")] = "val",
    sheet: Annotated[Path | None, typer.Option(help="Write a picture with images and masks to this file.")] = None,
    amount: Annotated[int, typer.Option(min=1, max=240, help="Images on the sheet.")] = 24,
    scores: Annotated[bool, typer.Option(help="Score trivial masks and SAM as it is.")] = True,
    model: Annotated[str, typer.Option(help="SAM to score: vit_nano, vit_b, vit_l or vit_h.")] = "vit_nano",
    checkpoint: Annotated[Path | None, typer.Option(help="Its official weights; not needed for vit_nano.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Show what a data set holds, and what a good number on it is: what is trivial, and what SAM does untrained.

    Example: infosam data show data/polyp --sheet polyp.png
    """
    from infosam.data.statistics import statistics, write_sheet

    console = Console()
    rows = statistics(data)
    _show_statistics(console, rows)
    if split not in {row.split for row in rows} and (scores or sheet is not None):
        there = " or ".join(f"--split {row.split}" for row in rows)
        raise DataError(f"{data}: no rows in split {split!r}; choose {there}")
    if sheet is not None:
        drawn = write_sheet(data, split, sheet, amount=amount)
        Console(stderr=True).print(Text(f"{drawn} images drawn in {sheet}"), soft_wrap=True)
    if scores:
        from infosam.config import load_run_config
        from infosam.yardstick import yardsticks

        table = Table("prompt", title=f"Before any training, {split} split, {model}", title_justify="left")
        for heading in ("trivial Dice", "trivial IoU", "zero-shot Dice", "zero-shot IoU"):
            table.add_column(heading, justify="right")
        overrides = [f"model.name={model}", *([f"model.checkpoint={checkpoint}"] if checkpoint else [])]
        for row in yardsticks(data, split, load_run_config(None, overrides).model, device=device):
            figures = (row.trivial_dice, row.trivial_iou, row.zero_shot_dice, row.zero_shot_iou)
            table.add_row(row.prompt, *(f"{figure:.4f}" for figure in figures))
        console.print(table)
        console.print("A tuned model that does not beat both has learnt nothing.")


def _show_statistics(console: Console, rows: list[SplitStatistics]) -> None:
    table = Table("split")
    for heading in ("masks", "images", "groups", "longest side px", "foreground share", "empty masks"):
        table.add_column(heading, justify="right")
    for row in rows:
        sides = " | ".join(f"{side:,}" for side in row.longest_px)
        shares = " | ".join(f"{share:.1%}" for share in row.share)
        table.add_row(
            row.split, f"{row.masks:,}", f"{row.images:,}", f"{row.groups:,}", sides, shares, f"{row.empty:,}"
        )
    console.print(table)
    console.print("Sides and shares: smallest 5 % | middle | largest 5 %")


for more in (growing_commands, fetch_commands, remote_commands):
    more.add_to(app)
