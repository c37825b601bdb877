"""Figures of one replica for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PLAIN_LABEL = "(plain SAM)"


class Figures:
    """Counters of this process only: with several replicas each answers for itself, told apart by `replica`."""

    def __init__(self, replica: str) -> None:
        self._registry = CollectorRegistry()
        self._replica = replica
        self._requests = Counter(
            "infosam_requests", "Answers by path and status.", ["replica", "path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "infosam_request_seconds", "From the first byte of a request to its answer.", ["replica", "path"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._masks = Counter(
            "infosam_masks", "Masks by the domain whose adapter made them.", ["replica", "domain"],
            registry=self._registry,
        )  # fmt: skip
        self._abstained = Counter(
            "infosam_abstentions", "Pictures that looked like no known domain.", ["replica"], registry=self._registry
        )
        self._domains = Gauge(
            "infosam_domains", "Adapters that can be asked for.", ["replica"], registry=self._registry
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer; `path` is one of the application's own."""
        self._requests.labels(self._replica, path, str(status)).inc()
        self._seconds.labels(self._replica, path).observe(seconds)

    def made(self, domain: str | None, *, automatic: bool) -> None:
        """Counts a mask."""
        self._masks.labels(self._replica, domain or PLAIN_LABEL).inc()
        if automatic and domain is None:
            self._abstained.labels(self._replica).inc()

    def text(self, domains: int) -> bytes:
        """Everything in Prometheus' text format."""
        self._domains.labels(self._replica).set(domains)
        return generate_latest(self._registry)
