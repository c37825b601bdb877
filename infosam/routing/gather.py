"""Bundles from many places into one pool; what cannot be used is said, and costs the others nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infosam.bundle import Bundle, read_bundle
from infosam.data.card import AUTO
from infosam.errors import BundleError, UnknownDomain, UserError
from infosam.resolvers import known_domains, resolve_domain
from infosam.routing.pool import AdapterPool
from infosam.sam.weights import sha256_of


@dataclass(frozen=True)
class Gathered:
    """A pool, and a sentence for every bundle that is not in it or cannot be chosen automatically."""

    pool: AdapterPool
    problems: list[str]


def champion_bundles() -> tuple[dict[str, Path], list[str]]:
    """The bundle's folder of every domain's champion, and a sentence for every one that cannot be had.

    Raises UnknownDomain if no domain has a champion."""
    names, problems = known_domains()
    found: dict[str, Path] = {}
    for name in names:
        try:
            found[name] = resolve_domain(name)
        except UserError as problem:
            problems.append(f"{name} is left out: {problem}")
    if not names:
        raise UnknownDomain(
            "\n  ".join(["no domain has a champion yet: run `infosam sweep`, or name --bundle", *problems])
        )
    return found, problems


def by_domain(folders: list[Path]) -> dict[str, Path]:
    """Bundles by the domain their cards name. Raises BundleError for a broken bundle, or two of the same domain."""
    found: dict[str, Path] = {}
    for folder in folders:
        named = read_bundle(folder).card.get("domain")
        name = str(named) if named not in (None, "", AUTO) else folder.name
        if name in found:
            raise BundleError(f"{folder} and {found[name]} are both of the domain {name}; name one of them")
        found[name] = folder
    return found


def gather(
    places: Mapping[str, Path],
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    memory_mib: int | None = None,
    versions: Mapping[str, str] | None = None,
) -> Gathered:
    """A pool of the bundles, by domain, that lie there whole and go on one base: that of most of them, or, with
    `checkpoint`, the one whose weights are in that file. `versions`: what masks say made them, by domain.

    Raises BundleError if none can be used, WeightsError if the base weights are not here."""
    opened, problems = _opened(places)
    base = _common_base(opened, checkpoint)
    if base is None:
        raise BundleError("\n  ".join(["no bundle can be used:", *problems]))
    pool = AdapterPool(opened[base].model(checkpoint), device=device, memory_mib=memory_mib)
    for domain in opened:
        try:
            pool.add(domain, places[domain], (versions or {}).get(domain))
        except UserError as problem:
            problems.append(f"{domain} is left out: {problem}")
    by_name = sorted(set(pool.domains()) - set(pool.routable()))
    problems += [
        f"{domain} is never chosen automatically: its bundle has no statistics of its images (too few, or it was made "
        f"by an older version); use --domain {domain}"
        for domain in by_name
    ]
    return Gathered(pool, problems)


def _opened(places: Mapping[str, Path]) -> tuple[dict[str, Bundle], list[str]]:
    opened: dict[str, Bundle] = {}
    problems = []
    for domain, folder in sorted(places.items()):
        try:
            opened[domain] = read_bundle(folder)
        except UserError as problem:
            problems.append(f"{domain} is left out: {problem}")
    return opened, problems


def _common_base(opened: Mapping[str, Bundle], checkpoint: Path | None) -> str | None:
    """A domain whose bundle goes on the base that the pool shall have; None if there is none."""
    bases = {
        domain: (bundle.card["base"].get("sha256"), bundle.card["base"].get("image_px"))
        for domain, bundle in opened.items()
    }
    if checkpoint is not None and checkpoint.is_file():
        wanted = sha256_of(checkpoint)
        bases = {domain: base for domain, base in bases.items() if base[0] == wanted} or bases
    if not bases:
        return None
    most = Counter(bases.values()).most_common(1)[0][0]
    return next(domain for domain, base in bases.items() if base == most)
