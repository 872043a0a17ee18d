"""Short ways to configure and to ask, for the tests of limits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from coordination.coordinator import Coordinator
from coordination.errors import LimitExceeded
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
