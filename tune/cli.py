"""The commands of the search: `infosam sweep | calibrate | demo | ui | report | champions`. Heavy imports come late."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from infosam.config import read_yaml
from infosam.errors import UserError
from tune.calibrate import CALIBRATE_HELP, calibrate
from tune.champions.commands import champions_app
from tune.config import SweepConfig, load_sweep_configs, parse_sweep_configs
from tune.console import wide_console
from tune.default_command import DEFAULT, WithDefault
from tune.home import Home, find_home
from tune.prune import prune_command
from tune.report.command import REPORT_HELP, report_command
from tune.sweep_init import INIT_HELP, init
from tune.sync import sync

if TYPE_CHECKING:
    from tune.results import SweepOutcome

EXIT_INTERRUPTED = 130
DEMO_DOMAIN = "spores"
DEMO_SEED = 0
DEMO_IMAGES = {"train": 32, "val": 16, "test": 16}

SWEEP_HELP = """Search for the best adapter of a domain, or of several at once.

CONFIG is a YAML file; `infosam sweep default data=DIR` uses the defaults, and with `domains=[DIR1,DIR2]` in place of
`data=DIR` there is a sweep for each domain, on the same workers. Settings after CONFIG change single keys:
`search.trials=32`, `run.train.epochs=20`, `space.optim.lr={log_uniform: [1e-4, 1e-2]}`.

Trials run on Ray: on this machine, or on the cluster that RAY_ADDRESS names. Each is recorded in MLflow. The best
trial by validation is scored once on the test images and becomes the domain's champion if it beats the untuned model,
the trivial baselines and the champion so far.

Ctrl-C ends it with what was found so far. `infosam sweep --resume NAME` goes on with a sweep that was cut off, or whose
machine died: finished trials are kept, the others go on from their checkpoints. Only `resources.*` may change then.
Sweeps of several domains have a NAME together, and each one of its own.

`infosam sweep init` writes a CONFIG file by asking; all options are at `infosam sweep run --help`.

Example: infosam sweep default data=data/polyp search.trials=8"""


def register(app: typer.Typer) -> None:
    """Hangs the commands on the root application."""
    sweeps = typer.Typer(cls=WithDefault, no_args_is_help=True)
    sweeps.command(DEFAULT, help=SWEEP_HELP)(sweep)
    sweeps.command("init", help=INIT_HELP)(init)
    app.add_typer(sweeps, name="sweep", help=SWEEP_HELP, rich_help_panel="Use")
    app.command("calibrate", help=CALIBRATE_HELP, rich_help_panel="Use")(calibrate)
    app.command("demo", rich_help_panel="Use")(demo)
    app.command("ui", rich_help_panel="Use")(ui)
    app.add_typer(champions_app, name="champions", rich_help_panel="Use")
    app.command("report", help=REPORT_HELP, rich_help_panel="Use")(report_command)
    app.command("prune", rich_help_panel="Use")(prune_command)
    app.command("sync", rich_help_panel="Use")(sync)


def sweep(
    context: typer.Context,
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="YAML file of a sweep, or `default`; none with --resume.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Changed settings.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, take a step on one worker and print the plan only.")
    ] = False,
    resume_name: Annotated[
        str | None,
        typer.Option("--resume", metavar="NAME", help="Go on with the sweep of this name, in this folder or bucket."),
    ] = None,
) -> None:
    if resume_name is not None:
        if dry_run:
            raise UserError("--dry-run plans a new sweep; it does not go with --resume")
        resume(resume_name, [*([config] if config else []), *(overrides or [])], verbose=_verbose(context))
        return
    if config is None:
        raise UserError("name the YAML file of a sweep, or `default`: infosam sweep default data=DIR")
    settings = named_configs(config, overrides or [])
    if dry_run:
        plan(settings, verbose=_verbose(context))
    else:
        run(settings, verbose=_verbose(context))


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
    run(parse_sweep_configs(settings, overrides or [], source="demo"), verbose=_verbose(context))


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


def plan(configs: Sequence[SweepConfig], *, verbose: bool = False, address: str | None = None) -> None:
    """Prints what the sweeps of a file would do and take. Raises as `tune.dry_run.dry_run`."""
    from tune.dry_run import dry_run

    dry_run(configs, home=find_home(), console=wide_console(), address=address, verbose=verbose)


def run(configs: Sequence[SweepConfig], *, verbose: bool = False, address: str | None = None) -> None:
    """Runs the sweeps of a file and prints their results. Raises as `tune.runner.run_sweeps`, and SweepFailed if one of
    them found nothing; ends with 130 after Ctrl-C."""
    from tune.runner import run_sweeps

    console = wide_console()
    _show(run_sweeps(configs, home=find_home(), console=console, address=address, verbose=verbose), console)


def resume(name: str, overrides: Sequence[str], *, verbose: bool = False, address: str | None = None) -> None:
    """Goes on with a sweep, or those of a group, and prints the results; with an address as `name`, with one that
    another machine left in a bucket (`tune.log_mirror`). Raises and ends as `run`."""
    from tune.log_mirror import recover
    from tune.runner import resume_sweeps

    console, home = wide_console(), find_home()
    if "://" in name:
        name = str(recover(name, home))
    outcomes = resume_sweeps(name, home=home, console=console, overrides=overrides, address=address, verbose=verbose)
    _show(outcomes, console)


def _show(outcomes: Sequence[SweepOutcome], console: Console) -> None:
    from tune.results import show_domains, show_outcome
    from tune.runner import SweepFailed

    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    if len(outcomes) > 1:
        show_domains(console, outcomes)
    elif not failures:
        show_outcome(console, outcomes[0])
    if any(outcome.interrupted for outcome in outcomes):
        raise typer.Exit(EXIT_INTERRUPTED)
    if failures:
        raise SweepFailed("; ".join(failures))


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


def named_configs(name: str, overrides: Sequence[str]) -> list[SweepConfig]:
    """The sweeps that CONFIG on the command line names, a file or `default`. Raises ConfigError."""
    path = shipped("default") if name == "default" and not Path(name).exists() else Path(name)
    return load_sweep_configs(path, overrides)


def shipped(name: str) -> Path:
    """A sweep file that comes with the package."""
    return Path(str(files("tune") / "sweeps" / f"{name}.yaml"))


def _verbose(context: typer.Context) -> bool:
    session: Any = context.obj
    return bool(getattr(session, "verbose", False))
