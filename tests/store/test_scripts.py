"""The contract of the scripts, on every server that it can be tried on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordination.ids import RoomName, Tenant
from coordination.store.keys import Catalogue
from tests.store.scripted import SERVERS, Scripted, scripted

ROOM = Catalogue().room(RoomName("call"), Tenant("default"))
FLOOR = ROOM.floor.keys
OPTIONS = (ROOM.channel, ROOM.everyone, "1")
TTL, SECOND = 2_000_000, 1_000_000
GRANTED, QUEUED, CANCELLED = 1, 2, 4


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Scripted]:
    async with scripted(request.param) as server:
        yield server


async def ask(server: Scripted, rid: str, *, how: str = "wait", seen: int = 0, recent: int = 0) -> Any:
    who = (rid, f"agent-{rid}", "p1", "role", TTL, 0)
    return await server.run("lease/request", FLOOR, *OPTIONS, *who, how, seen, recent, 60 * SECOND, "free", 1)


async def holder(server: Scripted) -> bytes | None:
    return await server.client.execute_command("HGET", ROOM.floor.lease, "rid")


class TestOnEachServer:
    async def test_a_free_lease_is_granted_and_a_repeated_request_gets_the_same_fence(self, server: Scripted) -> None:
        first, again = await ask(server, "r1"), await ask(server, "r1")

        assert (first[0], again[0]) == (GRANTED, GRANTED)
        assert first[1] == again[1]

    async def test_a_taken_lease_queues_the_next_and_release_passes_it_on_under_a_higher_fence(
        self, server: Scripted
    ) -> None:
        first = await ask(server, "r1")
        async with server.client.pubsub() as waiter:
            # As a command: the asyncio client of redis-py 7.0 has no method for it.
            await waiter.execute_command("SSUBSCRIBE", f"{ROOM.channel}p1")
            assert (await ask(server, "r2"))[0] == QUEUED
            released = await server.run("lease/release", FLOOR, *OPTIONS, "r1")

        assert released[0] == 1
        assert released[1] > first[1]
        assert await holder(server) == b"r2"

    async def test_a_waiter_that_nothing_reaches_is_skipped_and_keeps_its_place(self, server: Scripted) -> None:
        await ask(server, "r1")
        await ask(server, "r2")

        released = await server.run("lease/release", FLOOR, *OPTIONS, "r1")

        assert (released[0], released[1], await holder(server)) == (1, 0, None)
        assert await server.client.zcard(ROOM.floor.queue) == 1

    async def test_a_cancelled_request_is_refused_even_if_it_arrives_later(self, server: Scripted) -> None:
        await ask(server, "r1")
        await server.run("lease/cancel", FLOOR, *OPTIONS, "r1")
        await server.run("lease/cancel", FLOOR, *OPTIONS, "r2")

        assert await holder(server) is None
        assert [(await ask(server, rid))[0] for rid in ("r1", "r2")] == [CANCELLED, CANCELLED]
        assert (await ask(server, "r3"))[0] == GRANTED

    async def test_a_server_that_knows_less_than_the_caller_is_closed_to_all_but_the_highest_fence(
        self, server: Scripted
    ) -> None:
        seen = (await ask(server, "r1"))[1]
        await server.client.flushall()

        assert (await ask(server, "r2", seen=seen, recent=1))[0] == QUEUED
        claim = await server.run("lease/renew", FLOOR, *OPTIONS, "r1", "agent-r1", "p1", "role", TTL, seen, seen)
        assert list(claim[:2]) == [1, seen]

    async def test_a_grant_is_above_what_the_caller_has_seen_however_long_ago(self, server: Scripted) -> None:
        known = (await ask(server, "r1"))[1]
        await server.run("lease/release", FLOOR, *OPTIONS, "r1")
        ahead = known + 3600 * SECOND

        assert (await ask(server, "r2", seen=ahead, recent=0))[1] == ahead + 1

    async def test_a_lease_that_moved_on_is_not_renewed(self, server: Scripted) -> None:
        fence = (await ask(server, "r1"))[1]
        await server.run("lease/release", FLOOR, *OPTIONS, "r1")
        newer = (await ask(server, "r2"))[1]

        answer = await server.run("lease/renew", FLOOR, *OPTIONS, "r1", "agent-r1", "p1", "role", TTL, fence, fence)

        assert list(answer[:2]) == [0, newer]

    async def test_an_old_fence_writes_no_context(self, server: Scripted) -> None:
        old = (await ask(server, "r1"))[1]
        await server.run("lease/release", FLOOR, *OPTIONS, "r1")
        newer = (await ask(server, "r2"))[1]
        keys = (ROOM.context, ROOM.roster, ROOM.floor.lease)

        refused = await server.run("context/put", keys, ROOM.everyone, 0, '{"a":1}', 0, str(old), 60_000, "w1")
        written = await server.run("context/put", keys, ROOM.everyone, 0, '{"a":2}', 0, str(newer), 60_000, "w2")
        again = await server.run("context/put", keys, ROOM.everyone, 0, '{"a":2}', 0, str(newer), 60_000, "w2")

        assert list(refused) == [2, newer]
        assert written[0] == 1
        assert list(again) == list(written), "a repeated write is the same write"

    async def test_a_turn_that_is_appended_twice_stands_once(self, server: Scripted) -> None:
        fence = (await ask(server, "r1"))[1]
        keys = (ROOM.turns, ROOM.turn_order, ROOM.roster, ROOM.floor.lease, ROOM.events)
        turn = (ROOM.everyone, fence, "k1", "agent-r1", '{"text":"hello"}', 100, 10_000, 60_000)

        first, again = [await server.run("turns/append", keys, *turn) for _ in range(2)]

        assert first[0] == 1
        assert again[1] == first[1]
        assert await server.client.zcard(ROOM.turn_order) == 1

    async def test_everything_that_is_written_has_a_ttl(self, server: Scripted) -> None:
        for rid in ("r1", "r2"):
            await ask(server, rid)
        await server.run("lease/cancel", FLOOR, *OPTIONS, "r2")

        names = await server.client.keys("*")
        assert names
        assert [name for name in names if await server.client.pttl(name) == -1] == []
