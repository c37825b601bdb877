"""The command `infosam report`, and the way of its page to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infosam.errors import UserError
from tune.console import wide_console
from tune.home import Home, find_home
from tune.resources import environment
from tune.resume import find_sweep

if TYPE_CHECKING:
    from tune.report.record import Record

REPORT_HELP = """Write one page about a sweep: did fine-tuning help, what did the information terms give, what next.

The page is report.html in the sweep's folder, opens without network, and is kept in MLflow with the sweep's run.
A sweep writes it at its end; this writes it again, also while the sweep runs.

With --compare, one page lays several sweeps side by side, for example those of several domains.

Example: infosam report polyp; infosam report --compare polyp road"""


def report_command(
    sweeps: Annotated[list[str], typer.Argument(metavar="SWEEP...", help="Sweeps, or the paths of their folders.")],
    compare: Annotated[bool, typer.Option("--compare", help="One page about all of them.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Page of --compare; default: report-A-B.html beside the sweeps.")
    ] = None,
) -> None:
    from tune.report.page import write_comparison, write_report
    from tune.report.record import open_record
    from tune.study import quiet

    quiet(verbose=False)
    home, console = find_home(), wide_console()
    folders = [find_sweep(name, home) for name in sweeps]
    if compare and len(folders) < 2:
        raise UserError(f"--compare lays sweeps side by side, so it needs at least two, got {len(folders)}")
    if out is not None and not compare:
        raise UserError("--out names the page of --compare; the page of one sweep lies in its folder")
    if compare:
        page = out or folders[0].parent / f"report-{'-'.join(folder.name for folder in folders)}.html"
        console.print(f"Report: {write_comparison(folders, page.absolute())}", highlight=False, soft_wrap=True)
        return
    for folder in folders:
        record = open_record(folder)
        page = write_report(record)
        console.print(f"Report: {page}", highlight=False, soft_wrap=True)
        if problem := keep_in_mlflow(record, page, home):
            console.print(f"[yellow]Not kept in MLflow[/]: {problem}", highlight=False, soft_wrap=True)


def keep_in_mlflow(record: Record, page: Path, home: Home) -> str | None:
    """Adds the page to the files of the sweep's run; why that was not possible, if it was not."""
    from mlflow.exceptions import MlflowException

    from tune.mlflow_runs import sweep_marks
    from tune.position import without_password
    from tune.tracking import CLIENT_SETTINGS, new_client

    uri = record.config.tracking.uri or home.tracking_uri
    marks = sweep_marks(record.started, record.began_at)
    wanted = " and ".join(f"tags.{name} = '{value}'" for name, value in marks.items())
    with environment(CLIENT_SETTINGS):
        try:
            client = new_client(uri)
            experiment = client.get_experiment_by_name(record.started.experiment)
            runs = client.search_runs([experiment.experiment_id], wanted) if experiment else []
            parent = next((run for run in runs if "trial_id" not in run.data.tags), None)
            if parent is None:
                return (
                    f"{without_password(uri)} has no run of {record.name}; infosam sync {record.name} brings it there"
                )
            client.log_artifact(parent.info.run_id, str(page))
        except (MlflowException, OSError, UserError) as error:
            return f"{without_password(uri)}: {error}"
    return None
