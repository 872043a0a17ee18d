"""Limits as the store sees them: buckets and slots, with everything that can be computed before a request is made.

A bucket is full again at one moment, its theoretical arrival time; a request moves that moment on by an interval, and
passes if the moment is then no further ahead than the bucket's slack (GCRA, ITU-T I.371). Limit and period are divided
once per request, in whole numbers, rounded up: however large a cost is, its interval is exact to a microsecond.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Final

from coordination.errors import CostAboveLimit
from coordination.limits.config import RedisAway
from coordination.limits.units import FINEST, Costs, Unit

MICROSECOND: Final = timedelta(microseconds=1)
HORIZON: Final = 250_000
"""Microseconds by which admissions are told ahead, so that one look of the pump serves all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One bucket, as requests of one kind meet it."""

    limit: str
    unit: Unit
    hash: str
    field: str
    quantity: int
    """Thousandths of the unit in one period."""
    period: int
    """Microseconds."""
    slack: int
    """Microseconds: how much interval a full bucket holds."""
    beside_stock: bool = False
    """Whether the rest of the bucket is kept in stock for guarantees; the slack is then what is not kept."""
    away: RedisAway = RedisAway.LOCAL_SHARE

    @classmethod
    def of(
        cls,
        limit: str,
        unit: Unit,
        bucket: tuple[str, str],
        *,
        amount: int,
        burst: int,
        period: timedelta,
        kept: int = 0,
    ) -> Rate:
        """`kept`: how much of the burst is left in stock for others in any case."""
        quantity, us = amount * FINEST, period // MICROSECOND
        return cls(
            limit=limit,
            unit=unit,
            hash=bucket[0],
            field=bucket[1],
            quantity=quantity,
            period=us,
            slack=max(burst - kept, 0) * FINEST * us // quantity,
            beside_stock=kept > 0,
        )

    def interval(self, cost: int) -> int:
        """Microseconds that thousandths of the unit take of the bucket."""
        return -(-cost * self.period // self.quantity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """One set of slots that are held for a time."""

    limit: str
    set: str
    most: int
    away: RedisAway = RedisAway.LOCAL_SHARE


Check = Rate | Slots


@dataclass(frozen=True, kw_only=True)
class Shape:
    """All checks for requests of one kind: same provider, tenant, names and units."""

    provider: str
    tenant: str
    weight: float
    guaranteed: tuple[Check, ...]
    """What has to pass within the tenant's guarantees; empty without any."""
    ordinary: tuple[Check, ...]
    names: tuple[str, ...] = field(default=())
    """The limit of each ordinary check."""

    def variant(self, number: int) -> tuple[Check, ...]:
        """The checks that an admission passed: variant 1 is within the guarantees."""
        return self.guaranteed if number == 1 else self.ordinary

    @cached_property
    def holds_slots(self) -> bool:
        return any(isinstance(check, Slots) for check in self.ordinary)

    def slots_only(self) -> Shape:
        """The same without its rates."""
        slots = tuple(check for check in self.ordinary if isinstance(check, Slots))
        guaranteed = tuple(check for check in self.guaranteed if isinstance(check, Slots))
        return replace(self, guaranteed=guaranteed, ordinary=slots, names=tuple(check.limit for check in slots))

    def unbounded(self) -> Shape:
        """The same slots, however many are taken."""
        slots = tuple(replace(check, most=10**12) for check in self.ordinary if isinstance(check, Slots))
        return replace(self, guaranteed=(), ordinary=slots)

    def prepared(self, costs: Costs, slot: str) -> tuple[int, int, list[str | int]]:
        """What a request costs its tenant's share, and by how much it may be admitted ahead of its moment, both in
        microseconds; and its checks as the scripts take them.

        An admission that is told ahead takes of the bucket before it has filled up: where a part is kept in stock, the
        slack is shorter by that, and both together are no more than what is not kept. The checks are the number of
        values of the first variant, those values, and those of the second; four a check.
        Raises `CostAboveLimit` for a cost that could never pass.
        """
        ordinary: list[str | int] = []
        shared = most = 0
        horizon = HORIZON
        for check in self.ordinary:
            if isinstance(check, Slots):
                if check.most < 1:
                    raise CostAboveLimit(self.provider, check.limit, 1, check.most)
                ordinary += ("s", check.set, check.most, slot)
                continue
            cost = costs[check.unit]
            if cost > check.quantity:
                raise CostAboveLimit(self.provider, check.limit, cost / FINEST, check.quantity / FINEST)
            interval = -(-cost * check.period // check.quantity)
            slack = check.slack
            if check.beside_stock:
                ahead = min(max(slack - interval, 0), HORIZON)
                slack, horizon = slack - ahead, min(horizon, ahead)
            ordinary += (check.hash, check.field, interval, slack)
            most = interval if interval > most else most
            if check.hash == "provider" and interval > shared:
                shared = interval
        share = int((shared or most or 1_000_000) / self.weight) or 1
        guaranteed = self._guaranteed(costs, slot) if self.guaranteed else []
        return share, horizon, [len(guaranteed), *guaranteed, *ordinary]

    def _guaranteed(self, costs: Costs, slot: str) -> list[str | int]:
        values: list[str | int] = []
        for check in self.guaranteed:
            if isinstance(check, Slots):
                values += ("s", check.set, check.most, slot)
                continue
            interval = check.interval(costs[check.unit])
            if check.hash == "guarantee" and interval > check.slack:
                # More than the guaranteed burst is no part of the guarantee: it would use up what others are promised.
                return []
            values += (check.hash, check.field, interval, check.slack)
        return values
