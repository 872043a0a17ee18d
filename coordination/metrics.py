"""Prometheus metrics of every part, in one place.

They are created on first use, not at import: in LiveKit's job processes `PROMETHEUS_MULTIPROC_DIR` must be set before
prometheus_client is imported (docs/reference/metrics.md). Labels are bounded: a resource is named by its kind, never by
room, tenant or agent.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

    from coordination.leases.lease import LossReason
    from coordination.leases.request import LeaseRequest
    from coordination.ports import Silenced

M = TypeVar("M", "Counter", "Histogram")

_WAITS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_HOLDS: Final = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 1800)
_PHASES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.7, 1, 2, 5, 10, 30)


class Metrics:
    """The process's metrics; every method is cheap and never raises."""

    @cached_property
    def _grants(self) -> Counter:
        return _counter("baton_grants", "Leases granted to this process.", "kind")

    @cached_property
    def _losses(self) -> Counter:
        return _counter("baton_lease_ends", "Leases of this process that ended, by reason.", "kind", "reason")

    @cached_property
    def _wait(self) -> Histogram:
        return _histogram("baton_wait_seconds", "Time from a request to its grant.", _WAITS, "kind")

    @cached_property
    def _refused(self) -> Counter:
        return _counter("baton_refused_writes", "Writes that carried an old fence.", "part")

    @cached_property
    def _silenced(self) -> Counter:
        return _counter("baton_silenced", "Expired or suspect holders silenced at the media server.", "outcome")

    @cached_property
    def _handoffs(self) -> Counter:
        return _counter("baton_handoffs", "Handoffs that ended, by kind and outcome.", "kind", "outcome")

    @cached_property
    def _phase(self) -> Histogram:
        return _histogram("baton_handoff_phase_seconds", "Duration of a phase of a handoff.", _PHASES, "kind", "phase")

    @cached_property
    def _hold(self) -> Histogram:
        return _histogram("baton_floor_hold_seconds", "Time for which the floor was held.", _HOLDS)

    @cached_property
    def _admissions(self) -> Counter:
        return _counter("baton_limit_admissions", "Requests that limits admitted.", "provider")

    @cached_property
    def _limit_refusals(self) -> Counter:
        return _counter("baton_limit_refusals", "Requests that a limit refused, or kept too long.", "provider", "limit")

    @cached_property
    def _limit_alone(self) -> Counter:
        return _counter("baton_limit_alone", "Requests that a process admitted alone, Redis being away.", "provider")

    @cached_property
    def _limit_wait(self) -> Histogram:
        return _histogram("baton_limit_wait_seconds", "Time in the queue of a provider's limits.", _WAITS, "provider")

    @cached_property
    def _outbox(self) -> Counter:
        return _counter("baton_outbox_items", "Items of the outbox, by what became of them.", "kind", "outcome")

    @cached_property
    def _alone(self) -> Counter:
        return _counter("baton_uncoordinated_calls", "Calls that began without coordination because Redis was away.")

    def served_alone(self) -> None:
        self._alone.inc()

    @cached_property
    def _lost_agents(self) -> Counter:
        return _counter("baton_lost_agents", "Agents in calls that were found dead or hanging, by reason.", "reason")

    @cached_property
    def _takeovers(self) -> Counter:
        return _counter("baton_takeovers", "Calls of lost agents that were taken up, by how.", "how")

    @cached_property
    def _takeover_time(self) -> Histogram:
        return _histogram("baton_takeover_seconds", "From the detection of a lost holder to the next grant.", _PHASES)

    def lost_agent(self, reason: str) -> None:
        self._lost_agents.labels(reason).inc()

    def takeover(self, how: str, seconds: float) -> None:
        self._takeovers.labels(how).inc()
        self._takeover_time.observe(seconds)

    def granted(self, request: LeaseRequest) -> None:
        _child(self._grants, request.kind).inc()

    def lost(self, request: LeaseRequest, reason: LossReason) -> None:
        _child(self._losses, request.kind, reason).inc()

    def waited(self, request: LeaseRequest, seconds: float) -> None:
        _child(self._wait, request.kind).observe(seconds)

    def held(self, seconds: float) -> None:
        self._hold.observe(seconds)

    def silenced(self, outcome: Silenced) -> None:
        self._silenced.labels(outcome).inc()

    def refused_write(self, part: str) -> None:
        self._refused.labels(part).inc()

    def handoff(self, kind: str, outcome: str) -> None:
        self._handoffs.labels(kind, outcome).inc()

    def handoff_phase(self, kind: str, phase: str, seconds: float) -> None:
        self._phase.labels(kind, phase).observe(seconds)

    def limit_refused(self, provider: str, limit: str) -> None:
        _child(self._limit_refusals, provider, limit).inc()

    def limit_alone(self, provider: str) -> None:
        _child(self._limit_alone, provider).inc()

    def limit_admitted(self, provider: str) -> None:
        _child(self._admissions, provider).inc()

    def limit_waited(self, provider: str, seconds: float) -> None:
        _child(self._limit_wait, provider).observe(seconds)

    def outbox(self, kind: str, outcome: str) -> None:
        self._outbox.labels(kind, outcome).inc()


@cache
def _child(metric: M, *labels: str) -> M:
    """A metric with its labels. Kept: looking one up takes as long as the rest of a release."""
    return metric.labels(*labels)


def _counter(name: str, text: str, *labels: str) -> Counter:
    from prometheus_client import Counter

    return Counter(name, text, labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    from prometheus_client import Histogram

    return Histogram(name, text, labels, buckets=buckets)


METRICS: Final = Metrics()
