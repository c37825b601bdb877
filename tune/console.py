"""The console that commands print their tables on."""

from __future__ import annotations

import os

from rich.console import Console

PIPE_WIDTH = 140


def wide_console() -> Console:
    """Output that keeps its tables readable in a file or pipe, where there is no width to ask for."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=PIPE_WIDTH)
