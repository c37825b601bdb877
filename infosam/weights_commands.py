"""The commands `infosam weights ...`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from infosam.errors import WeightsError
from infosam.terms import agree, fetching, show_terms

LICENCE = "Apache-2.0, Meta Platforms, Inc. and affiliates (Segment Anything)"
ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything/"
FILES: Mapping[str, str] = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}
MAX_BYTES = 4 << 30  # the largest has 2.6 GB

app = typer.Typer(help="Bring the official weights of SAM.", no_args_is_help=True, rich_markup_mode="rich")


def register(root: typer.Typer) -> None:
    """Adds `weights` to the command `infosam`."""
    root.add_typer(app, name="weights", rich_help_panel="Use")


@app.callback()
def _weights() -> None:
    """Bring the official weights of SAM."""


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="vit_b, vit_l or vit_h; vit_nano is part of the package.")],
    out: Annotated[Path | None, typer.Option(help="File to write; default weights/ with the official name.")] = None,
    source: Annotated[str | None, typer.Option("--from", help="A mirror's address, or a file you have.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to the licence without being asked.")] = False,
) -> None:
    """Fetch official weights of SAM; a broken download goes on where it ended.

    Address, sum and licence are shown first. The file is in place only if its sum is right.

    Example: infosam weights fetch vit_b
    """
    from infosam.download import fetch_file
    from infosam.sam.architectures import ARCHITECTURES

    if name not in FILES:
        raise WeightsError(f"weights {name!r} are not known; choose one of {', '.join(FILES)} (vit_nano needs none)")
    sha256 = ARCHITECTURES[name].sha256
    assert sha256 is not None
    place = out or Path("weights") / FILES[name]
    address = source or ADDRESS + FILES[name]
    messages = Console(stderr=True)
    show_terms(messages, {"from": address, "to": str(place), "SHA-256": sha256, "licence": LICENCE})
    agree("Fetch it under this licence?", yes=yes)
    with fetching(messages) as progress:
        new = fetch_file(address, place, sha256=sha256, max_bytes=MAX_BYTES, progress=progress)
    done = "Written to" if new else "Already there, nothing to do:"
    Console().print(Text(f"{done} {place}; use it with --checkpoint or model.checkpoint={place}"), soft_wrap=True)
