"""What can be asked for, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cluster.serve.contract import Offer
from infosam.data.card import AUTO, PLAIN
from infosam.errors import UnknownDomain, UserError
from infosam.routing.pool import AdapterPool

if TYPE_CHECKING:
    from tune.champions.following import Standing


def offers_of(pool: AdapterPool, standings: Mapping[str, Standing]) -> list[Offer]:
    """What a pool has, and the champions that never came into it, with their problems."""
    automatic = set(pool.routable())
    offers = []
    for domain in sorted({*pool.domains(), *standings}):
        standing = standings.get(domain)
        offers.append(
            Offer(
                domain=domain,
                version=standing.version if standing else None,
                automatic=domain in automatic,
                problem=standing.problem if standing else None,
            )
        )
    return offers


def check_offered(domain: str, pool: AdapterPool, standings: Mapping[str, Standing]) -> None:
    """Raises UnknownDomain, or UserError for a domain whose adapter was meant to be here and is not."""
    if domain == AUTO and not pool.routable():
        raise UserError("no adapter here can be chosen automatically; name a domain of /v1/domains")
    if domain in (AUTO, PLAIN, *pool.domains()):
        return
    known = {one.domain: one.problem for one in offers_of(pool, standings)}
    if domain in known:
        raise UserError(f"{domain}: {known[domain]}")
    raise UnknownDomain(f"there is no domain {domain!r} here; known domains: {', '.join(known)}")
