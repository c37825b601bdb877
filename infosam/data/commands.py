"""The commands `infosam data ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from infosam.data.schema import DatasetCard

IMPORT_HELP = """Check images and masks and store them as one data set.

SRC is one of

- a folder with [bold]train.csv[/bold], [bold]val.csv[/bold] and [bold]test.csv[/bold], columns image,label, paths
relative to the folder;

- one [bold]CSV[/bold] with columns image,label and, if you like, split (train, val, test) and group (patient, video);

- a folder with [bold]images/[/bold] and [bold]masks/[/bold] and equal file names, perhaps in train/, val/ and test/.

Masks have two values, background 0 and object anything else; an image may have several masks. Missing splits are drawn
from train. Every file is opened; if one is bad, all bad ones are listed and nothing is written.

Example: infosam data import photos/ --domain polyp --out data/polyp"""

app = typer.Typer(help="Bring your own images and masks.", no_args_is_help=True, rich_markup_mode="rich")


def register(root: typer.Typer) -> None:
    """Adds `data` to the command `infosam`."""
    root.add_typer(app, name="data", rich_help_panel="Use")


@app.callback()
def _data() -> None:
    """Bring your own images and masks."""


@app.command("import", help=IMPORT_HELP)
def import_command(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder or CSV with images and masks.")],
    domain: Annotated[str, typer.Option(help="Name of the domain, such as polyp; champions are found by it.")],
    out: Annotated[Path, typer.Option(help="New folder for the data set.")],
    seed: Annotated[int, typer.Option(min=0, help="Draws splits that SRC lacks.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another data set at --out.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Keep images whose mask is empty.")] = False,
) -> None:
    """Imports with progress, then says what is in the data set."""
    from infosam.data.store import import_dataset  # takes seconds (torch, pyarrow), and every --help would pay them

    messages = Console(stderr=True)
    with Progress(
        TextColumn("Checking and storing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=messages,
        transient=True,
    ) as bar:
        task = bar.add_task("import", total=None)
        card = import_dataset(
            source,
            domain=domain,
            out=out,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            overwrite=overwrite,
            allow_empty=allow_empty,
        )
    for note in card.notes:
        messages.print(Text("note: ", style="yellow") + Text(note), soft_wrap=True)
    _show(Console(), card)


def _show(console: Console, card: DatasetCard) -> None:
    from infosam.data.schema import SPLITS

    table = Table("split", title=f"Domain {card.domain}", title_justify="left")
    table.add_column("masks", justify="right")
    for split in SPLITS:
        table.add_row(split, f"{card.counts[split]:,}")
    console.print(table)
    done = "Written to" if card.written else "Already imported, nothing to do:"
    console.print(Text(f"{done} {card.path} (digest {card.digest[:12]})"), soft_wrap=True)
