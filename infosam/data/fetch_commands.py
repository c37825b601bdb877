"""The command `infosam data fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from infosam.errors import FetchError
from infosam.terms import agree, fetching, show_terms

if TYPE_CHECKING:
    from infosam.data.public_sets import PublicSet


def add_to(app: typer.Typer) -> None:
    """Adds `fetch` to `infosam data`."""
    app.command("fetch")(fetch_command)


def fetch_command(
    name: Annotated[str, typer.Argument(help="polyp, leaf, camo, isic2017 or road.")],
    out: Annotated[Path | None, typer.Option(help="New folder for the files; default downloads/NAME.")] = None,
    mirror: Annotated[
        str | None, typer.Option(help="Fetch it from this address; one that ends in / is a folder with the same file.")
    ] = None,
    source: Annotated[Path | None, typer.Option("--from", help="Take an archive that you have.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Sum that the archive must have, if you know it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to the licence without being asked.")] = False,
) -> None:
    """Fetch a public data set of the paper; a broken download goes on where it ended.

    Address, sum, size and licence are shown first. The files are in place only if all of them are.

    Example: infosam data fetch leaf
    """
    from infosam.data.fetch import fetch_set  # takes a second, and every --help would pay it
    from infosam.data.public_sets import checked_sum, public_set

    entry = public_set(name)
    expected = checked_sum(sha256) if sha256 else entry.sha256
    place = out or Path("downloads") / name
    address = _address(name, entry, mirror, source)
    messages = Console(stderr=True)
    show_terms(
        messages,
        {
            "data set": entry.title,
            "from": address,
            "to": str(place),
            "SHA-256": expected or "none is published; the one found is shown, pass it on with --sha256",
            "size": f"{entry.bytes:,} bytes" if entry.bytes else "not published",
            "licence": entry.licence,
            "home": ", ".join(entry.homes),
        },
    )
    agree("Fetch it under this licence?", yes=yes)
    with fetching(messages) as progress:
        found = fetch_set(address, place, sha256=expected, progress=progress)
    for note in found.notes:
        messages.print(Text("note: ", style="yellow") + Text(note), soft_wrap=True)
    console = Console()
    console.print(Text(f"{found.files:,} files in {place} (archive SHA-256 {found.sha256})"), soft_wrap=True)
    command = f"infosam data import {found.source} --domain {entry.domain} --out data/{name}"
    console.print(Text(f"Next: {command}"), soft_wrap=True)


def _address(name: str, entry: PublicSet, mirror: str | None, source: Path | None) -> str:
    """Where to take the archive from. Raises FetchError if that is nowhere, or not said clearly."""
    from infosam.download import is_address

    if mirror and source:
        raise FetchError("--mirror and --from name two places; give one of them")
    if source:
        return str(source)
    if mirror and not is_address(mirror):
        raise FetchError(f"--mirror {mirror!r}: not an http(s) address; a file of yours goes to --from")
    official = entry.address
    if mirror and mirror.endswith("/") and official:
        return mirror + official.rpartition("/")[2]
    if mirror or official:
        return mirror or str(official)
    raise FetchError(
        f"{name}: no address of an archive is known; get it from {' or '.join(entry.homes)} and give it with --from"
    )
