"""`infosam champions list | show | promote | rollback | pull | publish | diff`. Heavy imports wait until needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from infosam.errors import UserError
from tune.champions.registry import CHAMPION, Version, exists, open_domain, open_registry
from tune.console import wide_console
from tune.home import find_home

if TYPE_CHECKING:
    from infosam.protocols import Prompt
    from tune.champions.registry import Registry

champions_app = typer.Typer(help="The best adapter of each domain.", no_args_is_help=True)

Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="Such as polyp.")]
Which = Annotated[str, typer.Argument(metavar="VERSION", help="A number, or champion, challenger or previous.")]


@champions_app.command("list")
def list_champions() -> None:
    """Show every domain with its champion, its validation and how it came about."""
    console = wide_console()
    found: dict[str, Version | None] = {}
    if exists(find_home().tracking_uri):
        with open_registry() as registry:
            found = {domain: registry.find(domain, CHAMPION) for domain in registry.domains()}
    if not found:
        console.print("No domain has a champion yet; run `infosam sweep`.")
        return
    table = Table("domain", "champion", "val Dice box", "no prompt", "sweep", "trial", "since")
    for domain, champion in found.items():
        if champion is None:
            table.add_row(domain, "none", "-", "-", "-", "-", f"see `infosam champions show {domain}`")
        else:
            table.add_row(domain, champion.number, *_dice(champion), *_origin(champion), _date(champion))
    console.print(table)


@champions_app.command()
def show(domain: Domain) -> None:
    """Show all versions of a domain with what was decided about each, and the champion's card."""
    from tune.champions.packaging import describe_card
    from tune.champions.promotion import AGAINST, DECISION, REASONS

    console = wide_console()
    with open_domain(domain) as registry:
        versions = registry.versions(domain)
        card = next((_card(registry, version) for version in versions if "champion" in version.aliases), None)
    table = Table(title=f"Versions of {domain}", title_justify="left")
    for name in ("version", "alias", "val Dice box", "no prompt", "sweep", "trial", "made", "decision", "against"):
        table.add_column(name)
    for version in versions:
        decision = version.tags.get(DECISION, "-") + (", rolled back" if "rolled_back" in version.tags else "")
        table.add_row(
            version.number, ", ".join(version.aliases), *_dice(version), *_origin(version), _date(version), decision,
            version.tags.get(AGAINST, "-"),
        )  # fmt: skip
    console.print(table)
    for version in versions:
        if version.aliases:
            reasons = version.tags.get(REASONS, "no reasons are recorded")
            console.print(Text(f"Version {version.number} ({', '.join(version.aliases)}): {reasons}"), soft_wrap=True)
    console.print(Markdown(describe_card(card)) if card else f"{domain} has no champion")


@champions_app.command()
def promote(
    domain: Domain,
    version: Which,
    data: Annotated[Path | None, typer.Option(help="Apply the rule on this data set's validation images.")] = None,
    force: Annotated[str | None, typer.Option(metavar="REASON", help="Override the rule; say why.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Base weights here, if not vit_nano.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Make a version champion: if the rule lets it on the data you name, or by force.

    Example: infosam champions promote polyp challenger --data data/polyp
    """
    from tune.champions.contest import Contest
    from tune.champions.lookup import bundle_of
    from tune.champions.promotion import REASONS, decide
    from tune.champions.promotion import force as promote_by_force
    from tune.champions.rule import describe

    console = wide_console()
    with open_domain(domain) as registry:
        chosen = registry.require(domain, version)
        if (data is None) == (force is None):
            raise UserError(
                f"give --data DIR, to apply the rule on its validation images, or --force REASON, to override it; "
                f"{chosen.name} was judged before: {chosen.tags.get(REASONS, 'no reasons are recorded')}"
            )
        if force is not None:
            promote_by_force(registry, chosen, force)
            console.print(Text(f"Champion of {domain}: {chosen.name}, by force: {force}"), soft_wrap=True)
            return
        assert data is not None
        contest = Contest(data=data, prompt=_prompt(chosen), device=device, checkpoint=checkpoint)
        judgement = decide(registry, chosen, contest.evidence(bundle_of(registry, chosen)), contest.rescore)
    if not judgement.passed:
        raise UserError(f"{chosen.name} does not become champion: {describe(judgement.reasons)}")
    console.print(Text(f"Champion of {domain}: {chosen.name}; {describe(judgement.reasons)}"), soft_wrap=True)


@champions_app.command()
def rollback(domain: Domain) -> None:
    """Bring back the champion before this one; the two change places."""
    from tune.champions.promotion import rollback as swap

    with open_domain(domain) as registry:
        now, before = swap(registry, domain)
    before_text = f"; version {before.number} is now `previous`" if before else ""
    wide_console().print(Text(f"Champion of {domain}: {now.name}{before_text}"), soft_wrap=True)


@champions_app.command()
def pull(
    domain: Domain,
    out: Annotated[Path, typer.Option(help="New folder for the bundle; a bundle that lies there is replaced.")],
    version: Annotated[str, typer.Option(help="A number, or champion, challenger or previous.")] = "champion",
) -> None:
    """Copy a bundle out of the registry, whole and checked, to use, mail or archive it."""
    from infosam.bundle import copy_bundle
    from tune.champions.lookup import bundle_of

    with open_domain(domain) as registry:
        chosen = registry.require(domain, version)
        copy_bundle(bundle_of(registry, chosen), out)
    text = f"{chosen.name} is in {out}\nUse it: infosam predict --bundle {out} IMAGES --out DIR"
    wide_console().print(Text(text), soft_wrap=True)


@champions_app.command()
def publish(
    domains: Annotated[list[str] | None, typer.Argument(metavar="[DOMAIN]...", help="Default: all domains.")] = None,
) -> None:
    """Register the champions of now as one MLflow model, infosam-auto, in which the picture chooses the domain."""
    from tune.champions.publishing import MODEL
    from tune.champions.publishing import publish as register

    uri = find_home().tracking_uri
    if not exists(uri):
        raise UserError("no domain has a champion yet, so there is nothing to publish: run `infosam sweep`")
    made, included, problems = register(uri, domains or ())
    console = wide_console()
    for problem in problems:
        console.print(Text("warning: ", style="yellow") + Text(problem), soft_wrap=True)
    held = ", ".join(f"{version.domain} version {version.number}" for version in included)
    console.print(Text(f"{MODEL} version {made.number} holds {held}"), soft_wrap=True)


@champions_app.command()
def diff(domain: Domain, first: Which, second: Which) -> None:
    """Show in which settings and validation scores two versions differ."""
    from tune.plan import flat

    with open_domain(domain) as registry:
        versions = [registry.require(domain, which) for which in (first, second)]
        cards = [_card(registry, version) for version in versions]
    table = Table(title=f"What differs in {domain}", title_justify="left")
    for name in ("", *(f"version {version.number}" for version in versions), "difference"):
        table.add_column(name, overflow="fold")
    described = [flat(_compared(card)) for card in cards]
    for key in dict.fromkeys([*described[0], *described[1]]):
        left, right = (facts.get(key) for facts in described)
        if left != right:
            change = f"{right - left:+.4g}" if isinstance(left, float) and isinstance(right, float) else ""
            table.add_row(key, _cell(left), _cell(right), change)
    console = wide_console()
    if table.rows:
        console.print(table)
    else:
        console.print("No difference in settings, data, base weights or validation scores.")


def _prompt(version: Version) -> Prompt:
    """The prompt whose validation Dice chose the version."""
    return "none" if version.tags.get("prompt") == "none" else "box"


def _card(registry: Registry, version: Version) -> dict[str, Any]:
    from tune.champions.lookup import read_card

    return read_card(registry, version)


def _compared(card: Mapping[str, Any]) -> dict[str, Any]:
    """What of a card can differ for a reason: scores first, then settings and what they worked on."""
    adapter = card.get("metrics", {}).get("adapter", {})
    scores = {name: value for name, value in adapter.items() if name.startswith("val/")}
    rest = {key: card.get(key) for key in ("epoch", "data_digest", "base", "versions")}
    return {**scores, **card["config"], **rest}


def _dice(version: Version) -> list[str]:
    return [
        f"{float(version.tags[key]):.3f}" if key in version.tags else "-" for key in ("val/box/dice", "val/none/dice")
    ]


def _origin(version: Version) -> list[str]:
    return [version.tags.get("sweep_id", "-"), version.tags.get("trial_id", "-")]


def _date(version: Version) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(version.created_ms / 1000))


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
