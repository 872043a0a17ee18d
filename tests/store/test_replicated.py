"""Grants that replicas have to confirm (`acknowledge_replicas`): on a real primary and a real replica, which hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from coordination.coordinator import Coordinator
from coordination.dev.ports import LOOPBACK, free_tcp_ports
from coordination.errors import GrantNotReplicated
from coordination.handoff.context import HandoffContext
from coordination.ids import RoomName, Tenant
from coordination.settings import CoordinatorSettings
from coordination.store.keys import Catalogue
from tests.store.servers import BOUND, Node, Servers, eventually, nothing_left, running, waits_for_floor

FLOOR = Catalogue().room(RoomName("call"), Tenant("default")).floor.lease
CAREFUL = CoordinatorSettings(acknowledge_replicas=1, floor_ttl=timedelta(seconds=10))


class Pair(Servers):
    """A primary and its replica."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = [Node(self.folder, port, "--repl-diskless-sync-delay", "0") for port in free_tcp_ports(2)]
        self.primary, self.replica = self.nodes

    @property
    def url(self) -> str:
        return f"redis://{self.primary!r}"

    async def start(self) -> None:
        await asyncio.gather(*(node.start() for node in self.nodes))
        await self.replica.call("REPLICAOF", LOOPBACK, self.primary.port)

        async def online() -> bool:
            return b"master_link_status:up" in await self.replica.call("INFO", "replication")

        await eventually(online, "the replica follows")

    async def mended(self) -> None:
        """Wakes the replica; returns when it confirms what the primary wrote."""
        self.replica.wake()
        await eventually(lambda: self.primary.call("WAIT", 1, 500), "the replica confirms again")

    async def replica_knows(self) -> int:
        return int(await self.replica.call("HGET", FLOOR, "f") or 0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    async with running(Pair) as pair:
        yield pair


@pytest.fixture
async def here(pair: Pair) -> AsyncIterator[Coordinator]:
    async with Coordinator.open(pair.url, settings=CAREFUL) as coordinator:
        yield coordinator


@pytest.fixture
async def there(pair: Pair) -> AsyncIterator[Coordinator]:
    async with Coordinator.open(pair.url, settings=CAREFUL) as coordinator:
        yield coordinator


async def test_whichever_way_a_grant_comes_the_replica_knows_it_when_it_is_used(
    pair: Pair, here: Coordinator, there: Coordinator
):
    """In the reply, by push to a waiter, and moved by a handoff."""
    for _ in range(20):
        lease = await here.room("call").floor.request("a")
        assert await pair.replica_knows() == lease.fence
        await lease.release()

    old = await here.room("call").floor.request("a", role="a")
    waiting = await waits_for_floor(there, here, "b")
    await old.release()
    assert await pair.replica_knows() >= await waiting

    old = await here.room("call").floor.request("a", role="a")
    offer = await here.room("call").handoffs.offer(
        old, to_role="b", context=HandoffContext(), deadline=timedelta(seconds=5)
    )
    await there.room("call").handoffs.claim(offer.id, agent="b")
    request = await there.room("call").handoffs.ready(offer.id, agent="b")
    fence = await here.room("call").handoffs.commit(old, offer.id)
    moved = await there.room("call").floor.expect_grant("b", role="b", request_id=request)
    assert await pair.replica_knows() == moved.fence == fence
    await moved.release()
    await nothing_left(here)


async def test_while_the_replica_hangs_nothing_is_granted_and_nothing_else_is_held_up(pair: Pair, here: Coordinator):
    held = await here.acquire_lock("held", ttl=timedelta(seconds=1))
    pair.replica.stop()
    try:
        async with asyncio.timeout(BOUND):
            asked = [here.acquire_lock(f"{number}") for number in range(40)]
            refused = await asyncio.gather(here.room("call").floor.request("a"), *asked, return_exceptions=True)
        with pytest.raises(GrantNotReplicated, match=r"confirmed by 0 of 1 replicas within 0\.5 s: it was given back"):
            await here.room("call").floor.try_request("a")

        assert [type(each) for each in refused] == [GrantNotReplicated] * 41
        assert (await here.room("call").floor.state()).holder is None
        assert held.held, "what was granted before is renewed"
    finally:
        await pair.mended()

    again = await eventually(lambda: here.room("call").floor.try_request("a"), "the replica is back, the floor granted")
    assert await pair.replica_knows() == again.fence
    await again.release()
    await held.release()


async def test_a_waiter_whose_grant_is_not_confirmed_leaves_the_floor_to_others(
    pair: Pair, here: Coordinator, there: Coordinator
):
    old = await here.room("call").floor.request("a")
    waiting = await waits_for_floor(there, here, "b")
    pair.replica.stop()
    try:
        await old.release()
        with pytest.raises(GrantNotReplicated):
            await asyncio.wait_for(waiting, BOUND)
        async with Coordinator.open(pair.url) as careless:
            lease = await careless.room("call").floor.request("c", timeout=timedelta(seconds=5))
            await lease.release()
    finally:
        await pair.mended()
    await nothing_left(here)


async def test_a_cancelled_request_that_waits_for_replicas_leaves_nothing_behind(pair: Pair, here: Coordinator):
    pair.replica.stop()
    try:
        asking = asyncio.create_task(here.room("call").floor.request("a"))

        async def granted() -> bool:
            return (await here.room("call").floor.state()).holder == "a"

        await eventually(granted, "the primary has granted the floor")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

        async def given_back() -> bool:
            return not await granted()

        assert asking.cancelled()
        await eventually(given_back, "the floor is free again")
    finally:
        await pair.mended()


async def test_grants_are_confirmed_again_after_the_primary_dropped_every_connection_and_script(
    pair: Pair, here: Coordinator
):
    await (await here.acquire_lock("x")).release()
    await pair.primary.call("SCRIPT", "FLUSH")
    await pair.primary.call("CLIENT", "KILL", "TYPE", "normal")

    lease = await eventually(lambda: here.acquire_lock("x"), "granted on new connections")
    assert lease.held
    await lease.release()
