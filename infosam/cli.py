"""The command `infosam`: an empty root that every room hangs its own commands on through entry points.

Exit codes: 0 done, 1 the program failed, 2 the input was refused (nothing was started), 130 interrupted.
"""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from infosam import __version__
from infosam.errors import UserError, printable
from infosam.plugins import COMMANDS, describe_fault, load_plugins

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

ABOUT = "Adapt [bold]Segment Anything[/bold] to your images: import data, search for the best adapter, predict masks."

EXAMPLES = """\
[bold]A first look[/bold] (a few minutes, no data needed)

  infosam demo

[bold]Your own images[/bold]

  infosam data import photos/ --domain polyp --out data/polyp

  infosam sweep default data=data/polyp

  infosam ui

  infosam predict --domain polyp new-images/ --out masks/

[dim]Every command explains itself: infosam COMMAND --help.
Exit codes: 0 done, 1 failed, 2 input refused, 130 interrupted. Results are kept in ./infosam-runs
(or the folder that INFOSAM_HOME names). INFOSAM_DEBUG=1 or -v shows tracebacks.[/dim]
"""


@dataclass
class Session:
    """What the root options say to the code around the commands; handed to every command as `ctx.obj`."""

    verbose: bool = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves the process with the exit code described above."""
    session = Session(verbose=os.environ.get("INFOSAM_DEBUG", "") not in ("", "0"))
    console = Console(stderr=True)
    # Pillow's, of large pictures: a check counts them, and what is too large to be opened is refused by name.
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
    try:
        app, problems = build_app()  # loads every room: long enough for somebody to press Ctrl-C
        for problem in problems:
            console.print(Text("warning: ", style="yellow") + Text(problem), soft_wrap=True)
        app(args=None if arguments is None else list(arguments), prog_name="infosam", obj=session)
    except UserError as error:
        _show(console, error, title="Refused", session=session)
        sys.exit(EXIT_REFUSED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last line of defence; -v shows the whole trace
        _show(console, error, title="Failed", session=session)
        sys.exit(EXIT_FAILED)


def build_app() -> tuple[typer.Typer, list[str]]:
    """The root application with all installed commands, and a line for every extension that does not work."""
    app = typer.Typer(
        help=ABOUT,
        epilog=EXAMPLES,
        rich_markup_mode="rich",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    plugins = load_plugins(COMMANDS)
    problems = list(plugins.problems)
    for name, register in plugins.found.items():
        try:
            register(app)
        except Exception as error:  # noqa: BLE001 - a broken extension must not take the other commands with it
            problems.append(describe_fault(COMMANDS, name, register.__module__, error))
    return app, problems


def _root(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks of failures.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    if verbose and isinstance(context.obj, Session):
        context.obj.verbose = True


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"infosam {__version__} (Python {platform.python_version()})")
        raise typer.Exit


def _show(console: Console, error: Exception, *, title: str, session: Session) -> None:
    """One message in a red frame; the traceback only where it was asked for, and never for a refused input."""
    refused = isinstance(error, UserError)
    if session.verbose and not refused:
        console.print_exception(show_locals=False)
    message = str(error) if refused else f"{type(error).__name__}: {error}"
    if not refused and not session.verbose:
        message += "\n\nRun again with `infosam -v ...` to see where."
    console.print(Panel(Text(printable(message, keep="\n\t")), title=title, title_align="left", border_style="red"))
