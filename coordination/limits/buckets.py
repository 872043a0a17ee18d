"""Limits as the store sees them: buckets and slots, with everything that can be computed before a request is made.

A bucket is full again at one moment, its theoretical arrival time; a request moves that moment on by an interval, and
passes if the moment is then no further ahead than the bucket's slack (GCRA, ITU-T I.371). Limit and period are divided
once per request, in whole numbers, rounded up: however large a cost is, its interval is exact to a microsecond.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from coordination.errors import CostAboveLimit
from coordination.limits.config import RedisAway
from coordination.limits.units import FINEST, Costs, Unit
from coordination.store.wire import Template

MICROSECOND: Final = timedelta(microseconds=1)
HORIZON: Final = 250_000
"""Microseconds by which admissions are told ahead, so that one look of the pump serves all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One bucket, as requests of one kind meet it."""

    limit: str
    unit: Unit
    kind: str
    """A scope's name, `guarantee` or `ceiling`."""
    field: str
    """Of the hash of all buckets: limit and name; no limit's name begins with a slash, as those of other kinds do."""
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
        (kind, name), quantity, us = bucket, amount * FINEST, period // MICROSECOND
        return cls(
            limit=limit,
            unit=unit,
            kind=kind,
            field=f"/{kind}/{name}" if kind in ("guarantee", "ceiling") else name,
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


MOST_SHARE: Final = 10**15
"""Microseconds; more is the same as never."""
Check = Rate | Slots
_Rated = tuple[int, Unit, int, int, int | None, bool]
"""Place of its interval, unit, quantity, period, slack beside what is kept in stock, whether all share it."""


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
    packed: list[Template] = field(init=False, default_factory=list[Template], compare=False)
    """How its requests are sent, once there was one; see `admission`."""

    def variant(self, number: int) -> tuple[Check, ...]:
        """The checks that an admission passed: variant 1 is within the guarantees."""
        return self.guaranteed if number == 1 else self.ordinary

    @cached_property
    def plain(self) -> bool:
        """Whether requests of this kind differ in nothing but how much they take of each bucket."""
        rates = [check for check in self.ordinary if isinstance(check, Rate) and not check.beside_stock]
        return not self.guaranteed and len(rates) == len(self.ordinary)

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

    def prepared(self, costs: Costs, slot: str) -> tuple[int, int, list[Any]]:
        """What a request costs its tenant's share, and by how much it may be admitted ahead of its moment, both in
        microseconds; and its checks as the scripts take them.

        An admission that is told ahead takes of the bucket before it has filled up: where a part is kept in stock, the
        slack is shorter by that, and both together are no more than what is not kept. The checks are the number of
        values of the first variant, those values, and those of the second; four a check.
        Raises `CostAboveLimit` for a cost that could never pass.
        """
        values, rates, slots = self._template
        values = values.copy()
        shared = most = 0
        horizon = HORIZON
        for place, unit, quantity, period, stock, of_all in rates:
            cost = costs[unit]
            if cost > quantity:
                raise CostAboveLimit(self.provider, self._limit_at(place), cost / FINEST, quantity / FINEST)
            values[place] = interval = -(-cost * period // quantity)
            if stock is not None:
                ahead = min(max(stock - interval, 0), HORIZON)
                values[place + 1], horizon = stock - ahead, min(horizon, ahead)
            if interval > most:
                most = interval
            if of_all and interval > shared:
                shared = interval
        for place in slots:
            values[place] = slot
            if values[place - 1] < 1:
                raise CostAboveLimit(self.provider, self._limit_at(place), 1, values[place - 1])
        share = min(int((shared or most or 1_000_000) / self.weight) or 1, MOST_SHARE)
        if self.guaranteed:
            guaranteed = self._guaranteed(costs, slot)
            values[0:1] = [len(guaranteed), *guaranteed]
        return share, horizon, values

    @cached_property
    def _template(self) -> tuple[list[Any], tuple[_Rated, ...], tuple[int, ...]]:
        """The values of the second variant behind a zero, with what every request has of them; where each rate's
        interval belongs, and how it is computed; where the holder of slots belongs.
        """
        values: list[Any] = [0]
        rates: list[_Rated] = []
        slots: list[int] = []
        for check in self.ordinary:
            if isinstance(check, Slots):
                slots.append(len(values) + 3)
                values += ("s", check.set, check.most, "")
            else:
                stock = check.slack if check.beside_stock else None
                of_all = check.kind == "provider"
                rates.append((len(values) + 2, check.unit, check.quantity, check.period, stock, of_all))
                values += ("r", check.field, 0, check.slack)
        return values, tuple(rates), tuple(slots)

    def _limit_at(self, place: int) -> str:
        return self.ordinary[(place - 1) // 4].limit

    def _guaranteed(self, costs: Costs, slot: str) -> list[str | int]:
        values: list[str | int] = []
        for check in self.guaranteed:
            if isinstance(check, Slots):
                values += ("s", check.set, check.most, slot)
                continue
            interval = check.interval(costs[check.unit])
            if check.kind == "guarantee" and interval > check.slack:
                # More than the guaranteed burst is no part of the guarantee: it would use up what others are promised.
                return []
            values += ("r", check.field, interval, check.slack)
        return values
