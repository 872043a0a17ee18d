"""Limits for one provider, and what was charged to them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from coordination import Coordinator
from coordination.errors import LimitExceeded
from coordination.limits.config import LimitsConfig
from coordination.livekit.limited import Budget

PERIOD = 86_400
"""Seconds, a day: so long that nothing comes back by time while a test runs."""


def config(**limits: int) -> LimitsConfig:
    """One limit for each unit that is named, of the provider `emulated`; all may be taken at once."""
    rules: dict[str, Any] = {
        unit: {"unit": unit, "limit": limit, "period": PERIOD, "burst": limit}
        if unit != "streams"
        else {"unit": unit, "limit": limit, "transfer_margin": 0}
        for unit, limit in limits.items()
    }
    return LimitsConfig.parse({"providers": {"emulated": {"limits": rules}}})


def budget(coordinator: Coordinator, **who: Any) -> Budget:
    return Budget(**{"limits": coordinator.limits, "provider": "emulated", "tenant": "acme", **who})


async def fits(coordinator: Coordinator, **costs: float) -> bool:
    """Whether that much is left; nothing stays charged."""
    try:
        reservation = await coordinator.limits.reserve("emulated", tenant="judge", timeout=timedelta(0), **costs)  # type: ignore[arg-type]
    except LimitExceeded:
        return False
    reservation.cancel()
    await reservation.close()
    return True


async def left(coordinator: Coordinator, unit: str, most: int) -> int:
    """How much of a limit is left, found by halving."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if await fits(coordinator, **{unit: middle}):
            low = middle
        else:
            high = middle - 1
    return low


async def eventually_fits(coordinator: Coordinator, **costs: float) -> None:
    """Waits until that much is left; a hang is the test's own timeout."""
    async with asyncio.timeout(5):
        while not await fits(coordinator, **costs):
            await asyncio.sleep(0.01)


async def lose_slots(coordinator: Coordinator, provider: str = "emulated") -> None:
    """What becomes of the slots of a process that is stopped for three seconds."""
    store = coordinator._store
    for name in await store.command("KEYS", f"{store.keys.limits(provider).base}s:*"):
        await store.command("DEL", name)


async def beat(coordinator: Coordinator, provider: str = "emulated") -> None:
    """The first sign of life of a process that runs again."""
    await coordinator.limits._engine.heartbeat(coordinator._store.keys.limits(provider)).beat_once()


async def used(coordinator: Coordinator, tenant: str, unit: str) -> float:
    """What a tenant has really used so far, to a thousandth, as the limits have it from this process."""
    await coordinator.limits._engine.heartbeat(coordinator._store.keys.limits("emulated")).add_up()
    use = await coordinator.limits.show("emulated")
    return next(each.units.get(unit, 0.0) for each in use.tenants if each.tenant == tenant)
