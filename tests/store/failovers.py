"""What has to hold while a primary is lost, whoever promotes its replica."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from coordination.coordinator import Coordinator
from coordination.errors import HandoffRefused, StoreUnavailable
from coordination.handoff.context import HandoffContext
from coordination.leases.lease import LossReason
from tests.store.limited import FAILOVER, TAKERS, take_all
from tests.store.servers import SERVED_WITHIN, nothing_left

Failover = Callable[[], Awaitable[None]]
"""Loses the primary of the room `call`, and returns when its replica was promoted."""


async def a_handoff_is_finished(here: Coordinator, there: Coordinator, failover: Failover) -> None:
    """The primary is lost between *ready* and *commit*."""
    old = await here.room("call").floor.request("a", role="reception")
    context = HandoffContext(summary="wants a refund")
    offer = await here.room("call").handoffs.offer(
        old, to_role="billing", context=context, deadline=timedelta(seconds=30)
    )
    await there.room("call").handoffs.claim(offer.id, agent="b")
    request = await there.room("call").handoffs.ready(offer.id, agent="b")

    await failover()
    async with asyncio.timeout(SERVED_WITHIN):
        while True:
            try:
                fence = await here.room("call").handoffs.commit(old, offer.id)
                break
            except (HandoffRefused, StoreUnavailable):
                # The new agent is not subscribed at the new primary yet: the floor stays where it was.
                assert old.held
                await asyncio.sleep(0.02)
        lease = await there.room("call").floor.expect_grant("b", role="billing", request_id=request)

    assert lease.fence == fence > old.fence
    assert old.reason is LossReason.MOVED
    await lease.release()
    await nothing_left(here)


async def a_limit_holds(here: Coordinator, there: Coordinator, failover: Failover) -> None:
    """What was on its way as the primary died is charged or not, which nobody can know: one request of each taker."""
    for process in (here, there):
        process.limits.configure(FAILOVER)

    admitted = await take_all(here, there, failover=failover)

    assert abs(admitted - 60) <= TAKERS
