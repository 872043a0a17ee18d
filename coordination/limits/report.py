"""Asks the store what a provider's limits look like now, and who used it lately."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, cast

from coordination.limits.buckets import Rate, Slots
from coordination.limits.config import CALLS
from coordination.limits.shapes import Shapes
from coordination.limits.units import FINEST, Unit
from coordination.limits.usage import LimitUse, ProviderUse, summed
from coordination.store.keys import LimitKeys
from coordination.store.scripts import Script
from coordination.store.store import Store

SHOW: Final = Script.load("limits/show")
MOST_MINUTES: Final = 60
MICROSECONDS: Final = 1_000_000


async def report(store: Store, keys: LimitKeys, shapes: Shapes, provider: str, span: timedelta) -> ProviderUse:
    """The limits that all share, and tenants by what they had in the span. Raises `StoreError`."""
    checks = shapes.shared(provider)
    rates = [check for check in checks if isinstance(check, Rate)]
    slots = [check for check in checks if isinstance(check, Slots)]
    minutes = max(1, min(int(span.total_seconds() // 60), MOST_MINUTES))
    buckets = [rate.field for rate in rates]
    args = (keys.base, keys.usage, minutes, len(rates), *buckets, *(each.set for each in slots))
    reply: list[Any] = await store.run(SHOW, keys.keys, args)
    now, _, waiting, full, taken, processes, counts = reply
    names = cast("list[bytes | int]", waiting)
    return ProviderUse(
        provider=provider,
        processes=processes,
        waiting={cast("bytes", name).decode(): int(many) for name, many in zip(names[::2], names[1::2], strict=True)},
        limits=(
            *(_rate(rate, at, now) for rate, at in zip(rates, full, strict=True)),
            *(_slots(each, held) for each, held in zip(slots, taken, strict=True)),
        ),
        tenants=summed(counts),
    )


def _rate(rate: Rate, full_at: int, now: int) -> LimitUse:
    free = rate.slack - max(full_at - now, 0)
    return LimitUse(
        limit=rate.limit,
        unit=rate.unit.value,
        size=rate.quantity / FINEST,
        per=rate.period / MICROSECONDS,
        available=max(free, 0) * rate.quantity // rate.period / FINEST,
    )


def _slots(check: Slots, held: int) -> LimitUse:
    unit = CALLS if check.limit == CALLS else Unit.STREAMS.value
    return LimitUse(limit=check.limit, unit=unit, size=check.most, per=0, available=max(check.most - held, 0))
