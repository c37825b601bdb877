"""A segmenter that only cuts at a brightness, so that every answer is known."""

from __future__ import annotations

from cluster.serve.contract import Made, Offer, Order
from infosam.data.card import PLAIN
from infosam.errors import BundleError, UnknownDomain


class Brightness:
    """A segmenter with two domains, one of them broken."""

    ready = True

    def __init__(self) -> None:
        self.orders: list[Order] = []

    def offered(self) -> list[Offer]:
        return [
            Offer(domain="bright", version="3", automatic=True, problem=None),
            Offer(domain="broken", version=None, automatic=False, problem="version 2 cannot be used: damaged"),
        ]

    async def segment(self, order: Order) -> Made:
        self.orders.append(order)
        if order.domain == "broken":
            raise BundleError("rest.safetensors: damaged")
        if order.domain not in ("auto", PLAIN, "bright"):
            raise UnknownDomain(f"no adapter for {order.domain!r}; known domains: bright")
        domain = None if order.domain == PLAIN else "bright"
        return Made(
            mask=order.rgb[..., 0] > 127,
            domain=domain,
            version=None,
            score=0.25,
            threshold=1.0,
            reason="as bright as day: éclat",
        )
