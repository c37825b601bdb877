"""The command `infosam serve`. Heavy imports wait until it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    """Adds the command to the root application."""
    app.command(rich_help_panel="Use")(serve)


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen at; other than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that each hold the model and all adapters.")] = 1,
    bundle: Annotated[
        list[str] | None, typer.Option(metavar="DOMAIN=DIR", help="Serve these bundles instead of the champions.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Base weights; needed for vit_b, vit_l and vit_h.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    cpus: Annotated[float, typer.Option(min=0.1, help="Cores that a replica takes.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs that a replica takes; a fraction shares one.")] = 0.0,
    memory_mib: Annotated[
        int | None, typer.Option(min=1, help="Of adapters in memory; the rest waits on disk.")
    ] = None,
    max_upload_mib: Annotated[int, typer.Option(min=1, max=1024, help="Largest request.")] = 32,
    max_megapixels: Annotated[float, typer.Option(min=0.01, max=1000, help="Largest picture.")] = 25.0,
    follow_s: Annotated[float, typer.Option(min=0.5, help="Seconds between looks for new champions.")] = 10.0,
    address: Annotated[str | None, typer.Option(help="Ray cluster; default: RAY_ADDRESS, else this machine.")] = None,
) -> None:
    """Segment pictures over HTTP with the champions, and a page to try it. Ctrl-C ends it.

    A token that clients must send is read from INFOSAM_SERVE_TOKEN. docs/serving.md has the interface.

    Example: infosam serve --port 8000
    """
    from cluster.adapters import find_adapters, named_bundles
    from cluster.serve.settings import ServeSettings, check_exposure, read_token
    from cluster.serve.start import serving, wait

    token = read_token()
    check_exposure(host, token)
    adapters = find_adapters(named_bundles(bundle or []), checkpoint=checkpoint, device=device, memory_mib=memory_mib)
    settings = ServeSettings(
        host=host, port=port, replicas=replicas, cpus_per_replica=cpus, gpus_per_replica=gpus, adapters=adapters,
        follow_s=follow_s, max_upload_mib=max_upload_mib, max_megapixels=max_megapixels, token=token,
    )  # fmt: skip
    console = Console()
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        with serving(settings, address=address, verbose=bool(getattr(context.obj, "verbose", False))):
            access = "with the token of INFOSAM_SERVE_TOKEN" if token else "without a token"
            console.print(f"InfoSAM on {settings.url}, {access}  (Ctrl-C ends it)", highlight=False)
            wait()
    except KeyboardInterrupt:
        console.print("The server has ended.")
