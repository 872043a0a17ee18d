"""Prometheus metrics of one service. Labels are bounded: routes by their template, never ids or tenants."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest


class Metrics:
    """A registry of its own, so that two services in one process do not share figures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "backend_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "backend_request_seconds", "Time to an answer.", ("method", "route"), registry=self._registry
        )
        self.replays = Counter(
            "backend_replays", "Requests whose Idempotency-Key had been answered.", registry=self._registry
        )
        self.events = Counter("backend_events", "Events appended to the feed.", registry=self._registry)
        self.deliveries = Counter(
            "backend_webhook_deliveries", "Deliveries to webhooks, by outcome.", ("outcome",), registry=self._registry
        )

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
