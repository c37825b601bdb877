"""The command `infosam data pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infosam.terms import fetching


def add_to(app: typer.Typer) -> None:
    """Adds `pull` to `infosam data`."""
    app.command("pull")(pull_command)


def pull_command(
    url: Annotated[str, typer.Argument(help="Folder of a data set, such as s3://bucket/polyp or gs://bucket/polyp.")],
    cache: Annotated[Path, typer.Option(help="Folder for copies; each is named after domain and digest.")] = Path(
        "data/remote"
    ),
) -> None:
    """Copy a data set from a bucket once, compare it with its sums, and print the folder to use.

    Example: infosam sweep default data=$(infosam data pull s3://bucket/polyp)
    """
    from infosam.data.remote import local_copy

    with fetching(Console(stderr=True)) as progress:
        folder = local_copy(url, cache, progress)
    typer.echo(folder)
