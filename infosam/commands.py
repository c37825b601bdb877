"""Commands of the method itself: `infosam train | evaluate | predict | pretrain | synthesize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console

from infosam import weights_commands
from infosam.data.card import AUTO, PLAIN, SPLITS
from infosam.errors import UnknownDomain, UserError

if TYPE_CHECKING:
    from infosam.config import RunConfig
    from infosam.mask_files import MaskFormat

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Settings, such as peft.rank=8.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Base weights here; needed for vit_b, vit_l and vit_h.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


def register(app: typer.Typer) -> None:
    """Hangs the commands on the root application."""
    app.command(rich_help_panel="Use")(predict)
    app.command(rich_help_panel="One run")(train)
    app.command(rich_help_panel="One run")(evaluate)
    app.command(rich_help_panel="Make")(pretrain)
    app.command(rich_help_panel="Make")(synthesize)
    weights_commands.register(app)


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, folders of images, or patterns in quotes.")],
    out: Annotated[Path, typer.Option(help="Folder for masks, overlays/ and summary.csv.")],
    domain: Annotated[
        str | None, typer.Option(help="Use this domain's champion; auto: choose for each image; none: plain SAM.")
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="Use this adapter bundle instead; several with --domain auto, to choose among them."),
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSON or CSV with a box or points per image.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Folder of true masks (or one mask): prompts and scores.")] = None,
    form: Annotated[str, typer.Option("--format", help="png: masks/NAME.png. coco: masks.json of all images.")] = "png",
    checkpoint: Checkpoint = None,
    device: Device = "auto",
) -> None:
    """Segment images with a domain's champion; without prompts it finds what it was trained to find.

    Example: infosam predict --domain polyp new-images/ --out masks/
    With several champions: infosam predict --domain auto 'new-images/**/*.jpg' --out masks/
    """
    from infosam.mask_files import WRITERS
    from infosam.prediction_run import PredictionRequest, run_prediction

    if prompts is not None and truth is not None:
        raise UserError("give --prompts or --truth, not both: true masks are turned into prompts")
    if form not in WRITERS:
        raise UserError(f"--format must be one of {', '.join(WRITERS)}, got {form!r}")
    name, bundles, problems = _adapters(domain, bundle or [])
    request = PredictionRequest(
        bundles=bundles, domain=name, problems=problems, images=images, out=out, form=cast("MaskFormat", form),
        prompts=prompts, truth=truth, checkpoint=checkpoint, device=device,
    )  # fmt: skip
    run_prediction(request, Console())


def _adapters(domain: str | None, bundles: list[Path]) -> tuple[str, dict[str, Path], list[str]]:
    """The domain to ask the pool for, the bundles it holds, and what is wrong with champions that are left out."""
    from infosam.resolvers import resolve_domain
    from infosam.routing.gather import by_domain, champion_bundles

    if domain == PLAIN:
        return PLAIN, _for_their_base(bundles), []
    if domain == AUTO:
        found, problems = (by_domain(bundles), []) if bundles else champion_bundles()
        return AUTO, found, problems
    if len(bundles) > 1:
        raise UserError("several --bundle need --domain auto, which chooses one of them for each image")
    if (domain is None) == (not bundles):
        raise UserError("give either --domain (its champion is used) or --bundle (a bundle's folder), and not both")
    if domain is not None:
        return domain, {domain: resolve_domain(domain)}, []
    ((name, folder),) = by_domain(bundles).items()
    return name, {name: folder}, []


def _for_their_base(bundles: list[Path]) -> dict[str, Path]:
    """Bundles, or else the champions there are: plain SAM is then the one that most of them were trained on."""
    from infosam.routing.gather import by_domain, champion_bundles

    if bundles:
        return by_domain(bundles)
    try:
        return champion_bundles()[0]
    except UnknownDomain:
        return {}


def train(
    data: Annotated[Path, typer.Option(help="Folder of an imported data set.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the bundle; an unfinished run goes on.")],
    overrides: Overrides = None,
    config: Annotated[Path | None, typer.Option(help="YAML of settings.")] = None,
) -> None:
    """Train one configuration and write its adapter bundle; `infosam sweep` finds a good configuration for you.

    Example: infosam train --data data/polyp --out runs/lora8 peft.rank=8 train.epochs=5
    Over several processes: torchrun --nproc-per-node 2 -m infosam train ...
    """
    from infosam import distributed
    from infosam.config import load_run_config

    settings = load_run_config(config, overrides or [])
    with distributed.joined():
        _train(settings, data, out, Console(quiet=distributed.rank() > 0))


def _train(settings: RunConfig, data: Path, out: Path, console: Console) -> None:
    """One process of a run; the first one writes the bundle."""
    from infosam import distributed
    from infosam.bundle import export_bundle
    from infosam.training import best_checkpoint, load_materials
    from infosam.training import train as run

    materials = load_materials(settings.model, data, device=settings.train.device)
    for report in run(settings, materials, checkpoint_dir=out / "checkpoints"):
        values = report.values
        console.print(
            f"epoch {report.epoch}/{settings.train.epochs}  loss {values['loss/total']:.4f}  "
            f"val Dice box {values['val/box/dice']:.4f}  none {values['val/none/dice']:.4f}"
            f"{'  best' if report.is_best else ''}  {values['cost/seconds']:.1f} s"
        )
    best = best_checkpoint(out / "checkpoints")
    if best is None:
        raise RuntimeError(f"no checkpoint in {out}")
    card = {"domain": materials.train_set.store.card.domain}
    if distributed.rank() == 0:
        export_bundle(best, materials, out / "bundle", card=card)
    key = f"val/{settings.train.select}/dice"
    console.print(f"zero-shot {materials.zero_shot[key]:.4f}, best trivial {materials.trivial[key]:.4f}")
    console.print(f"bundle: {out / 'bundle'}")


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of an adapter bundle.")],
    data: Annotated[Path, typer.Option(help="Folder of an imported data set.")],
    split: Annotated[str, typer.Option(help="train, val or test. Choose on val; score test once.")] = "test",
    protocol: Annotated[str, typer.Option(help="strict, or official: the paper's released code with its quirks.")] = (
        "strict"
    ),
    out: Annotated[Path | None, typer.Option(help="Folder for scores.parquet and report.html.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="box, points or none; default: the protocol's own.")] = None,
    jitter: Annotated[float, typer.Option(help="Largest shift of a box's sides, as a share of its size.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of shifted boxes and points.")] = 0,
    examples: Annotated[int, typer.Option(min=0, help="Best and worst pictures on the page, each.")] = 8,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
) -> None:
    """Score a bundle on a split, beside zero-shot SAM and the trivial baselines, with every metric.

    Example: infosam evaluate runs/lora8/bundle --data data/polyp --split val --out runs/lora8/val
    """
    from infosam.assessment import assess_bundle
    from infosam.protocols import choose_protocol
    from infosam.report import check_out, print_tables, write_report

    if split not in SPLITS:
        raise UserError(f"--split must be one of {', '.join(SPLITS)}, got {split!r}")
    chosen = choose_protocol(protocol, prompts=prompt or (), jitter=jitter, seed=seed)
    if out is not None:
        check_out(out)
    assessment = assess_bundle(
        bundle, data, split, protocol=chosen, device=device, checkpoint=checkpoint, examples=examples if out else 0
    )
    console = Console()
    print_tables(assessment, console)
    if out is not None:
        scores, page = write_report(assessment, out)
        console.print(f"scores: {scores}  page: {page}", highlight=False)


def pretrain(
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished one of the same recipe goes on.")],
    overrides: Overrides = None,
    report_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 250,
    name: Annotated[str | None, typer.Option(help="Release the finished weights under this name, into --out.")] = None,
) -> None:
    """Pre-train vit_nano on procedural scenes from nothing. Stop and start it as you like.

    Example: infosam pretrain --out pretraining small_steps=2400 full_steps=450
    """
    from infosam.config import apply_overrides, validate
    from infosam.pretrain import PretrainConfig
    from infosam.pretrain import pretrain as run
    from infosam.release import release

    config = validate(PretrainConfig, apply_overrides({}, overrides or []), "pretrain")
    console = Console()
    for report in run(config, out, report_every=report_every):
        console.print(
            f"step {report.step}/{config.steps}  loss {report.loss:.4f}  IoU on unseen scenes: "
            f"box {report.box_iou:.3f}  point {report.point_iou:.3f}"
        )
    weights = release(out, out, name, figures={}) if name else out / "weights.safetensors"
    console.print(f"done: {weights} after {config.steps} steps")


def synthesize(
    out: Annotated[Path, typer.Option(help="New folder for images/, masks/ and the CSVs.")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    train: Annotated[int, typer.Option(min=1, help="Pictures to train on.")] = 48,
    val: Annotated[int, typer.Option(min=1)] = 16,
    test: Annotated[int, typer.Option(min=1)] = 16,
) -> None:
    """Write the small procedural domain that the demo uses: spores among debris.

    Example: infosam synthesize --out spores
    """
    from infosam.synthetic import write_demo_domain

    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out {out} is not empty; choose a new folder")
    write_demo_domain(out, seed=seed, train=train, val=val, test=test)
    Console().print(f"{train} + {val} + {test} pictures; next: infosam data import {out} --domain spores --out DIR")
