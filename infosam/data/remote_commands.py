"""The commands `infosam data pull` and `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infosam.terms import fetching


def add_to(app: typer.Typer) -> None:
    """Adds `pull` and `push` to `infosam data`."""
    app.command("pull")(pull_command)
    app.command("push")(push_command)


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


def push_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data set of infosam.")],
    url: Annotated[str, typer.Argument(help="Where to, such as s3://bucket/polyp or gs://bucket/polyp.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another data set that lies there.")] = False,
) -> None:
    """Copy a data set into a bucket, from where sweeps on any machine take it (data=s3://bucket/polyp).

    What was imported is sent after a look at its sums, files that lie there already are left out, and a push that was
    stopped leaves what was there before.
    """
    from infosam.data.pushing import push

    messages = Console(stderr=True)
    with fetching(messages, "Sending") as progress:
        sent = push(folder, url, progress, overwrite=overwrite)
    messages.print("Sent; use it with" if sent else "It is there already; use it with", end=" ", highlight=False)
    messages.print(f"data={url}", highlight=False, soft_wrap=True)
