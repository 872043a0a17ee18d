"""Tenants share what there is: by weights, above guarantees, below ceilings."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.store import Store
from tests.store.limited import PROVIDER, configure, passes, rate, streams

GUARANTEE = {"guarantees": {PROVIDER: {"few": {"limit": 40, "burst": 40}}}}


class Demand:
    """Tenants that ask for more than there is, each with some tasks in some process."""

    def __init__(self) -> None:
        self.admitted: list[tuple[str, int]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def of(self, coordinator: Coordinator, tenant: str, tasks: int = 20, **asked: Any) -> None:
        async def ask() -> None:
            while True:
                each = await coordinator.limits.reserve(PROVIDER, tenant=tenant, timeout=None, **asked)
                self.admitted.append((tenant, each.moment))

        self._tasks += [asyncio.create_task(ask()) for _ in range(tasks)]

    def shares(self, seconds: float) -> dict[str, float]:
        """Parts of what was admitted in the last seconds."""
        end = max(moment for _, moment in self.admitted)
        recent = Counter(tenant for tenant, moment in self.admitted if moment > end - seconds * 1e6)
        return {tenant: many / recent.total() for tenant, many in recent.items()}

    def rate(self, seconds: float) -> float:
        end = max(moment for _, moment in self.admitted)
        return sum(moment > end - seconds * 1e6 for _, moment in self.admitted) / seconds

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_shares_follow_the_weights(coordinator: Coordinator, other: Coordinator) -> None:
    weights = {"big": {"weight": 3}, "one": {"weight": 1}, "two": {"weight": 1}}
    limits = {"few": {"unit": "requests", "limit": 100, "period": 1, "burst": 20}}
    configure(coordinator, other, limits=limits, tenants=weights)
    demand = Demand()
    for process in (coordinator, other):
        for tenant in weights:
            demand.of(process, tenant, tasks=60, requests=1)

    await asyncio.sleep(3)
    await demand.stop()

    shares = demand.shares(2)
    assert shares == {
        tenant: pytest.approx(share, rel=0.1) for tenant, share in zip(weights, (0.6, 0.2, 0.2), strict=True)
    }
    assert 75 < demand.rate(2) < 105


async def test_shares_are_of_cost_not_of_requests(coordinator: Coordinator) -> None:
    configure(coordinator, limits={"tokens": {"unit": "tokens", "limit": 20_000, "period": 1}})
    demand = Demand()
    demand.of(coordinator, "long", tasks=80, tokens=400)
    demand.of(coordinator, "short", tasks=80, tokens=100)

    await asyncio.sleep(3)
    await demand.stop()

    shares = demand.shares(2)
    assert 4 * shares["long"] / shares["short"] == pytest.approx(1, rel=0.1)


async def test_a_tenant_within_its_guarantee_is_admitted_at_once(coordinator: Coordinator, other: Coordinator) -> None:
    limits = {"few": {"unit": "requests", "limit": 100, "period": 1, "burst": 50}}
    configure(coordinator, other, limits=limits, tenants={"vip": GUARANTEE})
    demand = Demand()
    demand.of(other, "crowd", tasks=60, requests=1)
    await asyncio.sleep(1)

    came_back = await asyncio.gather(
        *(coordinator.limits.reserve(PROVIDER, tenant="vip", requests=1) for _ in range(40))
    )
    await demand.stop()

    assert all(each.within_guarantee for each in came_back)
    # Each at the moment at which it asked: at 100/s, 40 requests would have to wait up to 0.4 s for their turn.
    assert not any(each.waited_for_turn for each in came_back)


async def test_what_is_guaranteed_is_lent_while_it_is_not_used(coordinator: Coordinator) -> None:
    limits = {"few": {"unit": "requests", "limit": 100, "period": 1, "burst": 50}}
    configure(coordinator, limits=limits, tenants={"vip": GUARANTEE})
    demand = Demand()
    demand.of(coordinator, "crowd", tasks=60, requests=1)

    await asyncio.sleep(2.2)
    await demand.stop()

    # Without what is guaranteed to the other, it would be 60.
    assert 75 < demand.rate(1.5) < 105


async def test_a_guaranteed_burst_stays_in_stock(coordinator: Coordinator) -> None:
    configure(coordinator, limits={"few": rate(limit=100, burst=50)}, tenants={"vip": GUARANTEE})

    others = [await passes(coordinator, tenant="crowd", requests=1) for _ in range(20)]
    own = [await passes(coordinator, tenant="vip", requests=1) for _ in range(45)]

    # The fifth that is not guaranteed, less a quarter of a second of the rate: what is told ahead leaves the stock be.
    assert sum(others) in (9, 10)
    assert own == [True] * 40 + [False] * 5


async def test_a_ceiling_holds_even_if_nobody_else_asks(coordinator: Coordinator) -> None:
    capped = {"ceilings": {PROVIDER: {"few": {"limit": 5, "burst": 5}}}}
    configure(coordinator, limits={"few": rate(limit=100, burst=50)}, tenants={"small": capped})

    own = [await passes(coordinator, tenant="small", requests=1) for _ in range(7)]

    assert own == [True] * 5 + [False] * 2
    assert await passes(coordinator, tenant="other", requests=1)


async def test_one_tenant_at_its_ceiling_does_not_hold_up_the_others(coordinator: Coordinator, store: Store) -> None:
    capped = {"ceilings": {PROVIDER: {"few": {"limit": 1, "burst": 1}}}}
    configure(coordinator, limits={"few": rate(limit=100, burst=50)}, tenants={"small": capped})
    await coordinator.limits.reserve(PROVIDER, tenant="small", requests=1)
    stuck = asyncio.ensure_future(coordinator.limits.reserve(PROVIDER, tenant="small", requests=1))
    await asyncio.sleep(0.05)

    assert await passes(coordinator, tenant="other", requests=1)
    stuck.cancel()
    await asyncio.wait([stuck])


async def test_guaranteed_streams_are_kept_free(coordinator: Coordinator) -> None:
    vip = {"guarantees": {PROVIDER: {"open": {"limit": 2}}}}
    configure(coordinator, limits={"open": streams(5)}, tenants={"vip": vip})

    others = [await passes(coordinator, tenant="crowd", streams=1) for _ in range(4)]
    own = [await passes(coordinator, tenant="vip", streams=1) for _ in range(3)]

    assert others == [True] * 3 + [False]
    assert own == [True] * 2 + [False]


async def test_lent_streams_come_back_as_leases_end(coordinator: Coordinator) -> None:
    vip = {"guarantees": {PROVIDER: {"open": {"limit": 2}}}}
    configure(coordinator, limits={"open": streams(3, lend=True)}, tenants={"vip": vip})
    lent = [await coordinator.limits.reserve(PROVIDER, tenant="crowd", streams=1) for _ in range(3)]
    ahead = asyncio.ensure_future(coordinator.limits.reserve(PROVIDER, tenant="crowd", streams=1, timeout=None))
    await asyncio.sleep(0.05)
    assert not await passes(coordinator, tenant="vip", streams=1)
    own = asyncio.ensure_future(coordinator.limits.reserve(PROVIDER, tenant="vip", streams=1, timeout=None))
    await asyncio.sleep(0.05)

    await lent[0].close()

    assert (await asyncio.wait_for(own, 5)).within_guarantee
    assert not ahead.done()
    await lent[1].close()
    await asyncio.wait_for(ahead, 5)
