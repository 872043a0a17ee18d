"""Redis goes away in mid-lease, and comes back: as it was, empty, or as it was before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.ids import AgentId
from coordination.leases.lease import LossReason
from coordination.ports import Silenced
from coordination.settings import CoordinatorSettings

TTL = timedelta(milliseconds=500)
KEEP = CoordinatorSettings(floor_ttl=TTL, keep_floor=True)
SILENCE = CoordinatorSettings(floor_ttl=TTL, keep_floor=False)
BOUND = 10.0


class Confirms:
    """A media server that silences whomever it is asked to."""

    async def silence(self, agent: AgentId) -> Silenced:
        return Silenced.ABSENT


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """One of the test's own, that may be ended."""
    async with EmbeddedValkey(directory=tmp_path) as started:
        yield started


async def save(server: EmbeddedValkey) -> None:
    async with Redis.from_url(server.url) as client:
        await client.execute_command("SAVE")


async def test_under_keep_a_holder_goes_on_and_is_the_holder_when_redis_is_back(server: EmbeddedValkey):
    async with Coordinator.open(server.url, settings=KEEP) as here, Coordinator.open(server.url) as there:
        lease = await here.room("call", silencer=Confirms()).floor.request("a")
        fence = lease.fence
        await save(server)

        server.kill()
        await asyncio.sleep(3 * TTL.total_seconds())
        assert lease.held
        await server.start()
        await asyncio.sleep(3 * TTL.total_seconds())

        state = await there.room("call").floor.state()
        assert lease.held
        assert (state.holder, state.fence, lease.fence) == ("a", fence, fence)


async def test_under_silence_a_holder_ends_at_its_deadline_and_asks_anew(server: EmbeddedValkey):
    async with Coordinator.open(server.url, settings=SILENCE) as here:
        floor = here.room("call", silencer=Confirms()).floor
        lease = await floor.request("a")

        server.kill()
        await asyncio.wait_for(lease.lost.wait(), BOUND)
        assert (lease.held, lease.reason) == (False, LossReason.EXPIRED)
        waiting = asyncio.create_task(floor.request("a", timeout=timedelta(seconds=BOUND)))
        await server.start()

        assert (await asyncio.wait_for(waiting, BOUND)).fence > lease.fence


async def test_what_is_asked_for_and_given_back_during_a_long_outage_is_served_when_it_is_over(
    server: EmbeddedValkey,
):
    """Longer than one call may take: a request lives for as long as it was given, a release is told later."""
    async with Coordinator.open(server.url) as here, Coordinator.open(server.url) as there:
        held = await here.acquire_lock("held", ttl=timedelta(minutes=1))
        await save(server)

        server.kill()
        releasing = asyncio.create_task(held.release())
        waiting = [
            asyncio.create_task(there.acquire_lock(name, timeout=timedelta(seconds=20))) for name in ("held", "other")
        ]
        await asyncio.sleep(2.5)
        assert not any(task.done() for task in waiting)
        await server.start()
        async with asyncio.timeout(BOUND):
            granted = await asyncio.gather(*waiting)

        assert await releasing
        assert granted[0].fence > held.fence
        for lease in granted:
            await lease.release()


async def test_a_waiter_that_a_backup_brings_back_holds_up_nobody(server: EmbeddedValkey):
    """It was served long ago: what is pushed to it again finds no request, and goes to the next one."""
    async with Coordinator.open(server.url) as here, Coordinator.open(server.url) as there:
        first = await here.room("call").floor.request("first")
        served = asyncio.create_task(there.room("call").floor.request("served"))
        while not (await here.room("call").floor.state()).queue:
            await asyncio.sleep(0.005)
        await save(server)
        await first.release()
        old = await served
        await old.release()
        last = await here.room("call").floor.request("last")
        await last.release()

        server.kill()
        await server.start()
        assert [entry.agent for entry in (await here.room("call").floor.state()).queue] == ["served"]
        async with asyncio.timeout(BOUND):
            again = await there.room("call").floor.request("again", timeout=None)

        assert again.fence > last.fence
        assert (old.held, first.held) == (False, False)
        await again.release()
        state = await here.room("call").floor.state()
        assert (state.holder, state.queue) == (None, ())


async def test_the_holder_that_came_after_a_backup_writes_under_its_fence_when_it_is_restored(server: EmbeddedValkey):
    """The server knows only the holder that was replaced, until the later one has claimed its lease."""
    async with Coordinator.open(server.url) as here, Coordinator.open(server.url) as there:
        old = await here.room("call").floor.request("old")
        await save(server)
        await old.release()
        new = await there.room("call").floor.request("new")

        server.kill()
        await server.start()
        async with asyncio.timeout(BOUND):
            while (await there.room("call").floor.state()).holder != "new":
                await asyncio.sleep(0.02)
        await there.room("call").context.update({"by": "new"}, lease=new)

        assert not old.held
        assert (await here.read_context("call")).data == {"by": "new"}
