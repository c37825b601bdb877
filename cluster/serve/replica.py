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
from cluster.serve.offers import check_offered, offers_of
from cluster.serve.settings import ServeSettings
from infosam.data.card import PLAIN
from infosam.errors import UserError
from infosam.routing.pool import Segmented

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
        return offers_of(self._pool, self._standings)

    @property
    def _standings(self) -> Mapping[str, Standing]:
        return self._follower.standings if self._follower else {}

    async def segment(self, order: Order) -> Made:
        """See `Segmenter`."""
        check_offered(order.domain, self._pool, self._standings)
        made = await self._together(order)
        if isinstance(made, UserError):
            raise made
        return made

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


def _made(segmented: Segmented) -> Made:
    return Made(
        mask=segmented.mask,
        domain=segmented.domain,
        version=segmented.version,
        score=segmented.score,
        threshold=segmented.threshold,
        reason=segmented.reason,
    )
