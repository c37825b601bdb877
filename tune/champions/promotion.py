"""How a bundle becomes champion: registered first, judged by the rule, and then the alias moves, or does not."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from infosam.errors import UserError
from tune.champions.lookup import CARD_DIGEST, bundle_of, digest_of
from tune.champions.packaging import describe_card, save_model
from tune.champions.registry import CHAMPION, PREFIX, PREVIOUS, Registry, Version, open_registry
from tune.champions.rule import Evidence, Incumbent, Judgement, PerImage, describe, judge

REASON_LIMIT = 4000
Decision = Literal["pending", "promoted", "refused", "forced"]
DECISION, REASONS, AGAINST = "decision", "reasons", "judged_against"
"""Tags of a version: what was decided, why, and the number of the champion of that moment, or `none`."""

Rescore = Callable[[Path], PerImage]
"""Dice of a bundle on each of the challenger's validation images (n,), in order. Raises UserError if it cannot be."""


@dataclass(frozen=True, kw_only=True)
class Challenger:
    """A trained bundle with everything that decides about it."""

    domain: str
    bundle: Path
    run_id: str  # of its trial, which keeps the files
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What was decided. `reasons` speak for a promoted bundle, or say what a refused one lacks."""

    promoted: bool
    model: str
    version: str
    reasons: tuple[str, ...]


def promote(uri: str, challenger: Challenger, rescore: Rescore) -> Promotion:
    """Registers the challenger in its domain, and makes it champion if it earned that.

    Offered again, as by a sweep that goes on after a crash, it is the same version. Raises RegistryUnreachable, or
    UserError for a broken bundle."""
    with open_registry(uri) as registry:
        version = _register(registry, challenger)
        judgement = decide(registry, version, challenger.evidence, rescore)
    return Promotion(
        promoted=judgement.passed,
        model=PREFIX + challenger.domain,
        version=version.number,
        reasons=judgement.reasons,
    )


def decide(registry: Registry, version: Version, evidence: Evidence, rescore: Rescore) -> Judgement:
    """Applies the rule to a registered version, and does what it says.

    A champion that was made meanwhile is compared as well: of several challengers at once each either beats the one
    before it, or is refused with that reason."""
    while True:
        champion = registry.find(version.domain, CHAMPION)
        if champion is not None and champion.number == version.number:
            reasons = champion.tags.get(REASONS, "it is the champion already")
            registry.tag(version, {DECISION: "promoted"})
            return Judgement(passed=True, reasons=(reasons,))
        judgement = judge(evidence, None if champion is None else _incumbent(registry, champion, rescore))
        tags = {
            REASONS: describe(judgement.reasons)[:REASON_LIMIT],
            AGAINST: champion.number if champion else "none",
        }
        if not judgement.passed:
            registry.tag(version, {**tags, DECISION: "refused"})
            registry.keep_as_challenger(version)
            return judgement
        registry.tag(version, tags)
        if registry.crown(version, instead_of=champion):
            registry.tag(version, {DECISION: "promoted"})
            return judgement


def force(registry: Registry, version: Version, why: str) -> None:
    """Makes a version champion against the rule; `why` becomes its reason. Raises UserError for a broken bundle."""
    bundle_of(registry, version)
    _take_over(registry, version)
    registry.tag(version, {DECISION: "forced", REASONS: f"by hand: {why}"[:REASON_LIMIT]})


def rollback(registry: Registry, domain: str) -> tuple[Version, Version | None]:
    """Swaps champion and previous; returns the champion that is and the one that was. Raises UserError."""
    previous = registry.find(domain, PREVIOUS)
    if previous is None:
        registry.require(domain, CHAMPION)
        raise UserError(f"domain {domain!r} has had one champion only, so there is none to go back to")
    bundle_of(registry, previous)
    removed = _take_over(registry, previous)
    if removed is not None:
        registry.tag(removed, {"rolled_back": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    return previous, removed


def _take_over(registry: Registry, version: Version) -> Version | None:
    """Moves the alias whoever holds it; returns who held it. Raises UserError if it is the champion already."""
    while True:
        champion = registry.find(version.domain, CHAMPION)
        if champion is not None and champion.number == version.number:
            raise UserError(f"{version.name} is the champion already")
        if registry.crown(version, instead_of=champion):
            return champion


def _register(registry: Registry, challenger: Challenger) -> Version:
    from infosam.bundle import read_bundle

    card = read_bundle(challenger.bundle).card
    digest = digest_of(challenger.bundle)
    folder = f"model-{digest[:12]}"  # another bundle of the same trial must not touch this one's files
    source = f"{registry.client.get_run(challenger.run_id).info.artifact_uri}/{folder}"
    known = registry.with_source(challenger.domain, source)
    if known is not None:
        return known
    with tempfile.TemporaryDirectory() as staging:
        save_model(challenger.bundle, card, Path(staging) / folder)
        registry.client.log_artifacts(challenger.run_id, str(Path(staging) / folder), folder)
    tags = {
        **{key: str(card[key]) for key in ("sweep_id", "trial_id", "seed", "protocol", "data_digest") if key in card},
        **_scores(card),
        "prompt": challenger.evidence.prompt,
        "base_sha256": str(card["base"]["sha256"]),
        CARD_DIGEST: digest,
        DECISION: "pending",
    }
    return registry.register(challenger.domain, source, challenger.run_id, tags, describe_card(card))


def _scores(card: Mapping[str, Any]) -> dict[str, str]:
    """Validation scores by name, those of the zero-shot model and the trivial baseline behind a prefix."""
    found: dict[str, str] = {}
    for model, prefix in (("adapter", ""), ("zero_shot", "zero_shot/"), ("trivial", "trivial/")):
        values = card.get("metrics", {}).get(model, {})
        found |= {f"{prefix}{name}": f"{value:.6f}" for name, value in values.items() if name.startswith("val/")}
    return found


def _incumbent(registry: Registry, champion: Version, rescore: Rescore) -> Incumbent:
    try:
        return Incumbent(version=champion.number, dice=rescore(bundle_of(registry, champion)))
    except UserError as error:
        return Incumbent(version=champion.number, dice=None, why_unknown=str(error))
