"""A Ray Serve replica: one base model, one pool of adapters, and the HTTP interface over them.

Imported by `infosam serve` and by the replicas only: it needs the extra `serve`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ray import serve

from cluster.serve.app import build_app
from cluster.serve.contract import Made, Offer, Order
from cluster.serve.settings import ServeSettings
from infosam.data.card import AUTO, PLAIN
from infosam.errors import UnknownDomain, UserError
from infosam.routing.pool import AdapterPool, Segmented

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tune.champions.following import Standing

log = logging.getLogger(__name__)

TOGETHER = 4
"""Pictures that go through the model at once."""
GATHER_S = 0.005
NAME = "infosam"


@serve.ingress()
class Replica:
    """Answers requests with the adapters of `settings`; new champions come in while it works."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        filled = settings.adapters.pool(every_s=settings.follow_s)
        if not filled.pool.domains():
            raise UserError("\n  ".join(["no adapter here can be used:", *filled.problems]))
        for problem in filled.problems:
            log.warning("%s", problem)
        self._pool, self._follower = filled.pool, filled.follower
        if self._follower is not None:
            self._follower.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray Serve asks for this after the constructor."""
        return build_app(self, self._settings, serve.get_replica_context().replica_id.unique_id)

    @property
    def ready(self) -> bool:
        """See `Segmenter`: a replica without its base model never gets this far."""
        return True

    def offered(self) -> list[Offer]:
        """See `Segmenter`."""
        return offers_of(self._pool, self._follower.standings if self._follower else {})

    async def segment(self, order: Order) -> Made:
        """See `Segmenter`."""
        problem = self._lacking(order.domain)
        if problem is not None:
            raise problem
        made = await self._together(order)
        if isinstance(made, UserError):
            raise made
        return made

    def _lacking(self, domain: str) -> UserError | None:
        """Why a request for this domain would not get an adapter that it could be meant to get."""
        if domain == AUTO and not self._pool.routable():
            return UserError("no adapter here can be chosen automatically; name a domain of /v1/domains")
        if domain in (AUTO, PLAIN, *self._pool.domains()):
            return None
        known = {one.domain: one.problem for one in self.offered()}
        if domain in known:
            return UserError(f"{domain}: {known[domain]}")
        return UnknownDomain(f"there is no domain {domain!r} here; known domains: {', '.join(known)}")

    @serve.batch(max_batch_size=TOGETHER, batch_wait_timeout_s=GATHER_S)
    async def _together(self, orders: list[Order]) -> list[Made | UserError]:
        return await asyncio.to_thread(self._work, orders)

    def _work(self, orders: list[Order]) -> list[Made | UserError]:
        """Masks in order. What one order cannot have is no reason to refuse its neighbours."""
        try:
            return [_made(each) for each in self._predict(orders)]
        except UserError as error:
            if len(orders) == 1:
                return [error]
            return [result for order in orders for result in self._work([order])]

    def _predict(self, orders: list[Order]) -> list[Segmented]:
        return self._pool.predict_batch(
            [order.rgb for order in orders],
            [order.prompt for order in orders],
            [None if order.domain == PLAIN else order.domain for order in orders],
        )


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


def _made(segmented: Segmented) -> Made:
    return Made(
        mask=segmented.mask,
        domain=segmented.domain,
        version=segmented.version,
        score=segmented.score,
        threshold=segmented.threshold,
        reason=segmented.reason,
    )
