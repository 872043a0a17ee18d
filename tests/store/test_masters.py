"""Split brain: a replica is promoted that had not seen the last grant, or two masters grant at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.ids import AgentId, RoomName, Tenant
from coordination.store.keys import Catalogue

LEASE = Catalogue().room(RoomName("call"), Tenant("default")).floor.lease
HOUR = 3_600_000_000
SOON = 8.0


@asynccontextmanager
async def replicated() -> AsyncIterator[tuple[EmbeddedValkey, EmbeddedValkey, Redis]]:
    """A primary, its replica, and a client of the replica."""
    at_once = ("--repl-diskless-sync-delay", "0")
    async with (
        EmbeddedValkey(arguments=at_once) as primary,
        EmbeddedValkey() as replica,
        Redis.from_url(replica.url) as client,
    ):
        await client.execute_command("REPLICAOF", "127.0.0.1", str(primary.port))
        async with asyncio.timeout(SOON):
            while (await client.info("replication"))["master_link_status"] != "up":
                await asyncio.sleep(0.02)
        yield primary, replica, client


async def known_to(client: Redis) -> int:
    """The last fence that the server knows."""
    return int(await client.execute_command("HGET", LEASE, "f") or 0)


async def arrived(client: Redis, fence: int) -> None:
    """Returns when the replica knows the fence."""
    async with asyncio.timeout(SOON):
        while await known_to(client) < fence:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("ahead", [0, HOUR], ids=["with a right clock", "an hour behind the old master"])
async def test_a_promoted_replica_that_missed_the_last_grant_gives_a_higher_fence(ahead: int) -> None:
    """With the right clock it does so by itself; behind, by what the one who asks has seen in the room."""
    async with replicated() as (primary, replica, client):
        async with Coordinator.open(primary.url) as before:
            floor = before.room("call").floor
            known = await floor.request("a")
            await known.release()
            await arrived(client, known.fence)
            await client.execute_command("REPLICAOF", "NO", "ONE")  # cut off: it sees nothing of what comes now
            if ahead:
                async with Redis.from_url(primary.url) as old:
                    await old.hset(LEASE, "f", str(known.fence + ahead))
            missed = await floor.request("a")
            assert await known_to(client) < missed.fence, "the replica has seen the grant"
            primary.kill()

        async with Coordinator.open(replica.url) as after:
            floor = after.room("call").floor
            if ahead:
                floor.witness(missed.fence, AgentId("a"))
            heir = await asyncio.wait_for(floor.request("b", timeout=timedelta(seconds=5)), SOON)

            assert heir.fence > missed.fence


async def test_of_two_masters_holders_the_one_that_sees_a_higher_fence_asks_before_it_goes_on() -> None:
    """It is not held until its own master has explained it, and then under a fence that is higher still."""
    async with replicated() as (primary, replica, client):
        await client.execute_command("REPLICAOF", "NO", "ONE")
        async with Coordinator.open(primary.url) as here, Coordinator.open(replica.url) as there:
            mine = await here.room("call").floor.request("a")
            theirs = await there.room("call").floor.request("b")
            assert theirs.fence > mine.fence

            here.room("call").floor.witness(theirs.fence, AgentId("b"))
            doubted = mine.held
            async with asyncio.timeout(SOON):
                while not mine.held:
                    await asyncio.sleep(0.005)

            assert not doubted
            assert mine.fence > theirs.fence
            there.room("call").floor.witness(mine.fence, AgentId("a"))
            assert not theirs.held, "the other one asks in its turn"
