"""What every command that downloads shows and asks before and while it does."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from infosam.download import Progress
from infosam.errors import FetchError


def show_terms(console: Console, terms: Mapping[str, str]) -> None:
    """One line each: where from, where to, sum, licence."""
    width = max(map(len, terms))
    for label, text in terms.items():
        console.print(Text(f"{label:>{width}}: {text}"), soft_wrap=True)


def agree(question: str, *, yes: bool) -> None:
    """Asks, unless `yes` already says so. Raises FetchError if the answer is no, or nobody is there to answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise FetchError(
            "nothing was fetched: nobody can be asked here (standard input is no terminal); "
            "read the licence above and, if you agree to the licence, add --yes"
        )
    if not typer.confirm(question, err=True):
        raise FetchError("nothing was fetched; agree to the licence, or say --yes")


@contextmanager
def fetching(console: Console, what: str = "Fetching") -> Iterator[Progress]:
    """A bar on a console, as the function (bytes there, bytes in all) that moves it."""
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("fetch", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
