"""Short ways to configure and to ask, for the tests of limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from coordination.coordinator import Coordinator
from coordination.errors import LimitExceeded, LimitsUnavailable
from coordination.limits.config import LimitsConfig

NOW = timedelta(0)
PROVIDER = "p"


def rate(unit: str = "requests", limit: int = 100, **more: Any) -> dict[str, Any]:
    """A limit over an hour, in which next to nothing comes back during a test."""
    return {"unit": unit, "limit": limit, "period": 3600, **more}


def streams(limit: int, **more: Any) -> dict[str, Any]:
    return {"unit": "streams", "limit": limit, "transfer_margin": 0, **more}


def configure(
    *coordinators: Coordinator,
    limits: dict[str, dict[str, Any]] | None = None,
    tenants: dict[str, dict[str, Any]] | None = None,
    **more: Any,
) -> None:
    providers = {PROVIDER: {"limits": limits, **more}} if limits else {}
    config = LimitsConfig.parse({"providers": providers}, {"tenants": tenants or {}})
    for coordinator in coordinators:
        coordinator.limits.configure(config)


async def passes(coordinator: Coordinator, **asked: Any) -> bool:
    """Whether a request passes at once."""
    try:
        await coordinator.limits.reserve(PROVIDER, timeout=NOW, **asked)
    except LimitExceeded:
        return False
    return True


FAILOVER = LimitsConfig.parse(
    {"providers": {PROVIDER: {"redis_away": "fail_closed", "limits": {"few": rate(limit=60, burst=60)}}}}
)
TAKERS = 4


async def take_all(*coordinators: Coordinator, failover: Callable[[], Awaitable[object]], within: float = 30.0) -> int:
    """How many requests are admitted of `FAILOVER` in all, if the primary is lost after the first twenty.

    Each taker asks again while its limit cannot be reached, and ends when it hears that the limit is used up.
    """
    admitted: list[int] = []

    async def take(coordinator: Coordinator) -> None:
        while True:
            try:
                admitted.append((await coordinator.limits.reserve(PROVIDER, requests=1, timeout=NOW)).moment)
            except LimitExceeded:
                return
            except LimitsUnavailable:
                pass
            await asyncio.sleep(0.01)

    async def lose() -> None:
        while len(admitted) < 20:
            await asyncio.sleep(0.001)
        await failover()

    async with asyncio.timeout(within):
        await asyncio.gather(lose(), *(take(coordinators[n % len(coordinators)]) for n in range(TAKERS)))
    return len(admitted)
