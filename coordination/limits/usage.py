"""Who uses what: counted in each process, added up in the store every few seconds, kept for an hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from coordination.limits.request import LimitRequest
from coordination.limits.units import FINEST, Costs, Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUse:
    """What one tenant had of a provider in a span of time."""

    tenant: str
    admitted: int = 0
    waited: int = 0
    """Of those, how many had to wait."""
    refused: int = 0
    units: dict[str, float] = field(default_factory=dict[str, float])
    """What was really used, by unit."""
    share: float = 0.0
    """Part of all admissions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """One limit of a provider, for all tenants together."""

    limit: str
    unit: str
    size: float
    """The limit itself."""
    per: float
    """Its period in seconds; 0 for streams."""
    available: float
    """What would pass now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderUse:
    """What a provider's limits look like now, and who used it lately."""

    provider: str
    processes: int
    waiting: dict[str, int]
    """Requests in the queue, by tenant."""
    limits: tuple[LimitUse, ...]
    tenants: tuple[TenantUse, ...]


class Counts:
    """What this process has not yet added up, by tenant and what was counted."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def refused(self, tenant: str) -> None:
        self._counts[tenant, "refused"] += 1

    def admitted(self, tenant: str, request: LimitRequest) -> None:
        """Counts an admission at what was reserved; what is settled corrects it."""
        counts = self._counts
        counts[tenant, "admitted"] += 1
        if request.waited:
            counts[tenant, "waited"] += 1
        for unit, cost in request.costs.items():
            counts[tenant, unit] += cost

    def settled(self, tenant: str, request: LimitRequest, used: Costs) -> None:
        for unit, cost in request.costs.items():
            if difference := used[unit] - cost:
                self._counts[tenant, unit] += difference

    def take(self) -> list[str | int]:
        """The counts as the script takes them; forgotten here."""
        flat = [value for (tenant, what), many in self._counts.items() for value in (f"{tenant}\t{what}", many)]
        self._counts.clear()
        return flat


def summed(minutes: Sequence[Sequence[bytes]]) -> tuple[TenantUse, ...]:
    """The counts of several minutes by tenant, the largest first."""
    totals: dict[str, Counter[str]] = {}
    for flat in minutes:
        for name, many in zip(flat[::2], flat[1::2], strict=True):
            tenant, what = name.decode().split("\t")
            totals.setdefault(tenant, Counter())[what] += int(many)
    every = sum(counts["admitted"] for counts in totals.values()) or 1
    found = [
        TenantUse(
            tenant=tenant,
            admitted=counts["admitted"],
            waited=counts["waited"],
            refused=counts["refused"],
            units={unit.value: counts[unit.value] / FINEST for unit in Unit if unit.value in counts},
            share=counts["admitted"] / every,
        )
        for tenant, counts in totals.items()
    ]
    return tuple(sorted(found, key=lambda each: -each.admitted))
