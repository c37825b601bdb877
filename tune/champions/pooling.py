"""All champions of a registry in one pool of adapters, for Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infosam.errors import UnknownDomain, UserError
from tune.champions.lookup import bundle_of, champions
from tune.champions.registry import open_registry
from tune.home import find_home

if TYPE_CHECKING:
    from infosam.routing.gather import Gathered


def pool(
    uri: str | None = None,
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    memory_mib: int | None = None,
) -> Gathered:
    """The champions of the registry at `uri` (default: that of the results folder) in an `AdapterPool`, on the base
    that most of them have; `problems` says which are left out, and why.

    `checkpoint`: where the base weights lie here, for other bases than vit_nano. `memory_mib`: see `AdapterPool`.

    Raises UnknownDomain without champions, RegistryUnreachable, BundleError if none can be used, or WeightsError."""
    from infosam.routing.gather import gather

    uri = uri or find_home().tracking_uri
    places: dict[str, Path] = {}
    versions: dict[str, str] = {}
    problems: list[str] = []
    found = champions(uri)
    if not found:
        raise UnknownDomain(f"no domain has a champion in {uri}: run `infosam sweep`")
    with open_registry(uri) as registry:
        for version in found:
            try:
                places[version.domain] = bundle_of(registry, version)
                versions[version.domain] = version.number
            except (UserError, OSError) as problem:
                problems.append(f"{version.domain} is left out: {problem}")
    gathered = gather(places, checkpoint=checkpoint, device=device, memory_mib=memory_mib, versions=versions)
    gathered.problems[:0] = problems
    return gathered
