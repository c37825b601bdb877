"""`infosam cluster ...`: describe a Ray cluster, examine it, and run sweeps on it as jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.import_command import IMPORT_HELP, import_command
from cluster.serve import commands
from infosam.data.card import PLAIN
from infosam.errors import UserError

Address = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of the head, or ray://HOST:10001 from outside; default: RAY_ADDRESS, else local."),
]
Dashboard = Annotated[
    str | None,
    typer.Option(help="http://HOST:PORT of the dashboard; default: RAY_API_SERVER_ADDRESS, else 127.0.0.1:8265."),
]
Cluster = Annotated[
    str | None, typer.Option("--cluster", metavar="NAME", help="Use the token that `infosam cluster init` made for it.")
]
Settings = Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Changed settings of the sweep.")]


def register(app: typer.Typer) -> None:
    """Adds the `cluster` group and `serve` to the root application."""
    group = typer.Typer(help="Start a Ray cluster, look after it, and run sweeps on it.", no_args_is_help=True)
    for command in (init, plan, doctor, status, submit, logs, stop, predict):
        group.command()(command)
    group.command("import", help=IMPORT_HELP)(import_command)
    app.add_typer(group, name="cluster", rich_help_panel="Clusters")
    commands.register(app)


# The commands import what they do only when they run; importing it with the group would slow down every `infosam`.


def init(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="onprem, aws or gcp.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to write it; default: NAME.yaml.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the cluster; its token and key get a folder of that name.")] = "infosam",
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Answers a question beforehand.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Ask about your machines and write the file for `ray up`, with a token and a key for this cluster only.

    Kubernetes and Slurm need no questions: copy cluster/kuberay/ or cluster/slurm/. docs/cluster.md has all targets.

    Example: infosam cluster init onprem --set head=10.0.0.5 --set nodes=10.0.0.6,10.0.0.7
    """
    from cluster.access import make_key, make_token
    from cluster.templates import TARGETS, filled, refusal

    if target not in TARGETS:
        raise UserError(f"{target!r} is no target with questions; there are {', '.join(TARGETS)}")
    out = file or Path(f"{name}.yaml")
    if out.exists() and not overwrite:
        raise UserError(f"{out} is there already; name another file, or give --overwrite")
    chosen = TARGETS[target]
    answers = dict(each.partition("=")[::2] for each in given or [])
    unknown = sorted(set(answers) - {question.key for question in chosen.questions})
    if unknown:
        keys = ", ".join(question.key for question in chosen.questions)
        raise UserError(f"--set: {', '.join(unknown)} is no question of {target}; there are {keys}")
    filled(chosen, name, answers)  # before anything is asked or made
    for question in chosen.questions:
        default = question.example.rpartition(": ")[2] if question.has_default else None
        while question.key not in answers:
            answer = str(typer.prompt(f"{question.text} ({question.hint})", default=default))
            if (problem := refusal(question, answer)) is None:
                answers[question.key] = answer
            else:
                typer.echo(problem, err=True)
    key = make_key(name) if chosen.needs_key else None
    public = key.with_suffix(".pub").read_text(encoding="ascii").strip() if key else None
    text = filled(chosen, name, answers, public_key=public)
    make_token(name)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error}") from error
    if target == "onprem":
        typer.echo(f"Let the key in on every machine: ssh-copy-id -i {key}.pub USER@HOST")
    typer.echo(f"{out}: look it over, then: ray up {out}")


def plan(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of a sweep, or `default`.")],
    epoch_seconds: Annotated[
        float, typer.Option(min=0.001, help="Of one epoch of one trial; `infosam sweep CONFIG --dry-run` measures it.")
    ],
    settings: Settings = None,
    target: Annotated[str, typer.Option(help="Whose prices: aws, gcp, onprem, or another key of --prices.")] = "aws",
    workers: Annotated[int | None, typer.Option(min=1, help="Worker nodes; default: for all slots at once.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Your table of prices; default: the shipped prices.yaml.")] = None,
) -> None:
    """Estimate nodes, time and price of a sweep before anything is started.

    Example: infosam cluster plan polyp.yaml --epoch-seconds 40 --target aws --workers 8 resources.gpus_per_worker=1
    """
    from cluster.estimate import estimate, plan_table, read_prices
    from tune.cli import named_configs

    table = read_prices(prices, target)
    found = estimate(
        named_configs(config, settings or []), table, epoch_s=epoch_seconds, workers=workers, target=target
    )
    Console().print(plan_table(found, table, target))


def doctor(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="The sweep that will run there.")] = None,
    settings: Settings = None,
    address: Address = None,
    cluster: Cluster = None,
    timeout: Annotated[float, typer.Option(min=5, max=3600, help="Seconds to wait for all answers together.")] = 180.0,
) -> None:
    """Examine every node before a sweep, and say how to mend what is wrong; exit code 1 if anything is.

    Versions, GPUs and driver, the shared folder, MLflow, clocks, the token, the weights' checksum, shared memory. With
    CONFIG also what that sweep needs; run it where its paths mean the same as on the nodes, best on the head.

    Example: ray exec CLUSTER.yaml 'infosam cluster doctor /mnt/infosam/polyp.yaml'
    """
    from cluster.checks import diagnose
    from cluster.doctor import gather, show
    from tune.cli import named_configs

    wanted = named_configs(config, settings or [])[0] if config is not None else None
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    facts = gather(where, wanted, timeout_s=timeout, name=cluster)
    found = diagnose(facts)
    show(found, facts, Console())
    if any(found.values()):
        raise typer.Exit(1)


def status(
    address: Address = None,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait for all answers together.")] = 10.0,
) -> None:
    """Show nodes, free CPUs, GPUs and memory, and whether Ray and Python agree everywhere.

    Example: infosam cluster status --address 10.0.0.5:6379
    """
    from cluster.nodes import look, show_report

    show_report(look(address, timeout_s=timeout))


def submit(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A file here, or a path or URI the head can read.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the sweep; given again, the job goes on with it.")],
    settings: Settings = None,
    folder: Annotated[
        Path | None, typer.Option("--with", metavar="DIR", help="Folder to send along; data and weights stay here.")
    ] = None,
    dashboard: Dashboard = None,
    cluster: Cluster = None,
) -> None:
    """Run a sweep on a cluster as a job that goes on when this machine is switched off.

    Example: infosam cluster submit polyp.yaml polyp search.trials=64 --cluster infosam
    """
    from cluster.jobs import job_client
    from cluster.jobs import submit as submit_job

    with job_client(dashboard, cluster) as client:
        job_id, size = submit_job(client, config, name=name, settings=settings or [], folder=folder)
    typer.echo(f"{job_id}: sweep {name} is submitted ({size / 2**20:.1f} MiB sent)")
    typer.echo(f"Watch it: infosam cluster logs {job_id} --follow")


def logs(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id that submit printed.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
    dashboard: Dashboard = None,
    cluster: Cluster = None,
) -> None:
    """Print what a job has printed, and how it stands."""
    import asyncio

    from cluster.jobs import job_client

    async def print_all() -> None:
        async for text in client.tail_job_logs(job):
            typer.echo(text, nl=False)

    with job_client(dashboard, cluster) as client:
        if follow:
            asyncio.run(print_all())
        else:
            typer.echo(client.get_job_logs(job), nl=False)
        typer.echo(f"{job}: {client.get_job_status(job).value}")


def stop(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id that submit printed.")],
    dashboard: Dashboard = None,
    cluster: Cluster = None,
) -> None:
    """End a job, not the cluster: `ray down CLUSTER.yaml` does that. Submitting NAME again goes on with the sweep."""
    from cluster.jobs import job_client

    with job_client(dashboard, cluster) as client:
        stopped = client.stop_job(job)
    typer.echo(f"{job}: {'told to stop' if stopped else 'was over already'}")


def predict(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or bucket of pictures, subfolders included.")],
    out: Annotated[str, typer.Option(help="Folder or bucket for masks/ and summary.csv.")],
    domain: Annotated[str, typer.Option(help="A domain, auto (each picture decides) or none (plain SAM).")] = "auto",
    bundle: Annotated[
        list[str] | None, typer.Option(metavar="DOMAIN=DIR", help="Use these bundles instead of the champions.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSON or CSV with a box or points per picture.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that each hold the model and all adapters.")] = 1,
    cpus: Annotated[float, typer.Option(min=0.1, help="Cores that a worker takes.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs that a worker takes; a fraction shares one.")] = 0.0,
    checkpoint: Annotated[Path | None, typer.Option(help="Base weights; needed for vit_b, vit_l and vit_h.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make masks anew that are there already.")] = False,
    address: Address = None,
) -> None:
    """Segment all pictures of a folder or bucket over the machines of a cluster; started again, it goes on.

    Example: infosam cluster predict s3://lab/slides --out s3://lab/masks --workers 8 --gpus 0.5
    """
    from rich.progress import Progress

    from cluster.adapters import find_adapters, named_bundles
    from cluster.batch import BatchRequest, segment_all
    from infosam.prompt_files import read_prompts
    from tune.resources import SETTINGS, environment, ray_session

    device = "cuda" if gpus else "cpu"
    request = BatchRequest(
        source=source, out=out, domain=domain, workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus,
        adapters=find_adapters(
            named_bundles(bundle or []), checkpoint=checkpoint, device=device, plain=domain == PLAIN
        ),
        prompts=read_prompts(prompts) if prompts else {}, prompts_file=str(prompts or ""), overwrite=overwrite,
    )  # fmt: skip
    console = Console()
    with environment(SETTINGS), ray_session(address), Progress(console=console, transient=True) as progress:
        task = progress.add_task("Segmenting", total=None)
        counts = segment_all(
            request,
            lambda done, total: progress.update(task, completed=done, total=total),
            lambda problem: progress.console.print(f"warning: {problem}", style="yellow", highlight=False),
        )
    failed, before = counts.pop("problem", 0), counts.pop("before", 0)
    for name, count in sorted(counts.items()):
        console.print(f"{count} by {name or 'plain SAM'}", highlight=False)
    if before:
        console.print(f"{before} were there already", highlight=False)
    console.print(f"{out.rstrip('/')}/summary.csv has a line for each picture", highlight=False)
    if failed:
        console.print(f"{failed} could not be segmented; the summary says why", style="red", highlight=False)
        raise typer.Exit(1)
