"""The commands of the search: `infosam sweep | demo | ui | champions list`. Heavy imports wait until needed."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from infosam.config import read_yaml
from infosam.errors import UserError
from tune.config import SweepConfig, load_sweep_config, parse_sweep_config
from tune.home import Home, find_home

if TYPE_CHECKING:
    from tune.results import SweepOutcome

EXIT_INTERRUPTED = 130
DEMO_DOMAIN = "spores"
DEMO_SEED = 0
DEMO_IMAGES = {"train": 32, "val": 16, "test": 16}
PIPE_WIDTH = 140

SWEEP_HELP = """Search for the best adapter of a domain.

CONFIG is a YAML file; `infosam sweep default data=DIR` uses the defaults. Settings after it change single keys:
`search.trials=32`, `run.train.epochs=20`, `space.optim.lr={log_uniform: [1e-4, 1e-2]}`.

Trials run on Ray: on this machine, or on the cluster that RAY_ADDRESS names. Each is recorded in MLflow. The best
trial by validation is scored once on the test images and becomes the domain's champion if it beats the untuned model,
the trivial baselines and the champion so far.

Example: infosam sweep default data=data/polyp search.trials=8"""

champions_app = typer.Typer(help="The best adapter of each domain.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Hangs the commands on the root application."""
    app.command("sweep", help=SWEEP_HELP, rich_help_panel="Use")(sweep)
    app.command("demo", rich_help_panel="Use")(demo)
    app.command("ui", rich_help_panel="Use")(ui)
    app.add_typer(champions_app, name="champions", rich_help_panel="Use")


def sweep(
    context: typer.Context,
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of a sweep, or `default`.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Changed settings.")] = None,
) -> None:
    path = shipped("default") if config == "default" and not Path(config).exists() else Path(config)
    run(load_sweep_config(path, overrides or []), verbose=_verbose(context))


def demo(
    context: typer.Context,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Changed settings.")] = None,
) -> None:
    """See a whole sweep in a few minutes: 8 trials on a small made-up domain, no data needed.

    Makes pictures of round spores among debris, searches for the adapter that finds them, and shows what was gained.
    """
    settings: dict[str, Any] = read_yaml(shipped("demo"))
    settings["data"] = str(make_demo_data(find_home(), wide_console()))
    settings["resources"]["cpus_per_worker"] = min(os.cpu_count() or 1, settings["resources"]["cpus_per_worker"])
    run(parse_sweep_config(settings, overrides or [], source="demo"), verbose=_verbose(context))


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Open all sweeps in the browser: MLflow on this machine only (127.0.0.1). Ctrl-C ends it."""
    home = find_home()
    if not home.database.is_file():
        raise UserError(
            f"nothing to show: {home.database} does not exist; run `infosam sweep` or `infosam demo` "
            "first, or set INFOSAM_HOME to the folder of your results"
        )
    Console().print(f"MLflow on http://127.0.0.1:{port}  (Ctrl-C ends it)", highlight=False)
    os.execv(sys.executable, ui_arguments(home, port))


def ui_arguments(home: Home, port: int) -> list[str]:
    """The command line of the MLflow server over a results folder, loopback only."""
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{home.database}",
        "--artifacts-destination",
        home.artifacts.as_uri(),
    ]


@champions_app.command("list")
def list_champions() -> None:
    """Show every domain that has a champion, with its validation and how it came about."""
    from tune.champions import champions

    found = champions()
    console = wide_console()
    if not found:
        console.print("No domain has a champion yet; run `infosam sweep`.")
        return
    table = Table("domain", "version", "val Dice box", "no prompt", "sweep", "trial")
    table.add_column("bundle", overflow="fold")
    for champion in found:
        tags = champion.tags
        scores = (f"{float(tags[key]):.3f}" if key in tags else "-" for key in ("val/box/dice", "val/none/dice"))
        table.add_row(
            champion.domain,
            champion.version,
            *scores,
            tags.get("sweep_id", "-"),
            tags.get("trial_id", "-"),
            champion.source,
        )
    console.print(table)


def run(config: SweepConfig, *, verbose: bool = False, address: str | None = None) -> SweepOutcome:
    """Runs a sweep and prints its result. Raises as `run_sweep`; ends with 130 after Ctrl-C."""
    from tune.results import show_outcome
    from tune.runner import run_sweep

    console = wide_console()
    outcome = run_sweep(config, home=find_home(), console=console, address=address, verbose=verbose)
    show_outcome(console, outcome)
    if outcome.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    return outcome


def wide_console() -> Console:
    """Output that keeps its tables readable in a file or pipe, where there is no width to ask for."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=PIPE_WIDTH)


def make_demo_data(home: Home, console: Console) -> Path:
    """The demonstration's dataset, made on first use; returns its folder."""
    from infosam.data.store import import_dataset
    from infosam.synthetic.domains import write_demo_domain

    source, out = home.demo / "images", home.demo / "data"
    if not source.is_dir():
        write_demo_domain(source, seed=DEMO_SEED, **DEMO_IMAGES)
    card = import_dataset(source, domain=DEMO_DOMAIN, out=out, seed=DEMO_SEED, overwrite=True)
    counts = ", ".join(f"{count} {split}" for split, count in card.counts.items())
    console.print(f"Domain {DEMO_DOMAIN}: {counts} images in {out}", highlight=False, soft_wrap=True)
    return out


def shipped(name: str) -> Path:
    """A sweep file that comes with the package."""
    return Path(str(files("tune") / "sweeps" / f"{name}.yaml"))


def _verbose(context: typer.Context) -> bool:
    session: Any = context.obj
    return bool(getattr(session, "verbose", False))
