"""`infosam cluster ...`: what a Ray cluster looks like from here."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the `cluster` group to the root application."""
    group = typer.Typer(help="Look at the Ray cluster that sweeps run on.", no_args_is_help=True)
    group.command("status")(status)
    app.add_typer(group, name="cluster", rich_help_panel="Clusters")


def status(
    address: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the head, or ray://HOST:10001 from outside; default: RAY_ADDRESS, else local."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait for all answers together.")] = 10.0,
) -> None:
    """Show nodes, free CPUs, GPUs and memory, and whether Ray and Python agree everywhere.

    Example: infosam cluster status --address 10.0.0.5:6379
    """
    # Only this command needs the logic below; importing it with the group would slow down every `infosam --help`.
    from cluster.nodes import look, show_report

    show_report(look(address, timeout_s=timeout))
