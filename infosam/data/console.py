"""What the commands `infosam data ...` show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from infosam.data.card import SPLITS, DatasetCard
from infosam.errors import printable


@contextmanager
def progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a console that is a terminal, as the function (done, total) that moves it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show_card(console: Console, card: DatasetCard, *, done: str, place: str | None = None) -> None:
    """Rows per split, and what was done; `place` is where it lies if not where it was written."""
    table = Table("split", title=f"Domain {card.domain}", title_justify="left")
    table.add_column("masks", justify="right")
    for split in SPLITS:
        table.add_row(split, f"{card.counts[split]:,}")
    console.print(table)
    console.print(Text(f"{done} {place or card.path} (digest {card.digest[:12]})"), soft_wrap=True)


def show_notes(console: Console, notes: tuple[str, ...]) -> None:
    """One line each."""
    for note in notes:
        console.print(Text("note: ", style="yellow") + Text(printable(note)), soft_wrap=True)


def sent(console: Console, url: str) -> Callable[[int, int | None], None]:
    """A line for each file that has been sent, as the function (bytes sent, bytes in all)."""
    return lambda done, total: console.print(
        Text(f"{done / 2**20:,.1f} of {(total or done) / 2**20:,.1f} MiB sent to {url}"), soft_wrap=True
    )
