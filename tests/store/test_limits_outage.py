"""Redis away: each policy, by stopping a real server under load and bringing it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import LimitError, LimitExceeded, LimitsUnavailable
from tests.store.limited import NOW, PROVIDER, configure, passes, rate, streams


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedValkey]:
    """A server of the test's own, to be stopped."""
    async with EmbeddedValkey() as own:
        yield own


@pytest.fixture
async def client(server: EmbeddedValkey) -> AsyncIterator[Coordinator]:
    async with Coordinator.open(server.url) as opened:
        yield opened


async def away(server: EmbeddedValkey, client: Coordinator) -> None:
    await asyncio.to_thread(server.kill)
    async with asyncio.timeout(10):
        while client._store.connected:
            await asyncio.sleep(0.005)


async def back(server: EmbeddedValkey, client: Coordinator) -> None:
    await server.start()
    async with asyncio.timeout(10):
        while not client._store.connected or client._store.subscriber.connected_since is None:
            await asyncio.sleep(0.005)


async def test_fail_closed_lets_nothing_pass_until_redis_is_back(server: EmbeddedValkey, client: Coordinator) -> None:
    configure(client, limits={"few": rate(limit=100, redis_away="fail_closed")})
    await client.limits.reserve(PROVIDER, requests=1)
    await away(server, client)

    with pytest.raises(LimitsUnavailable, match="'few'"):
        await client.limits.reserve(PROVIDER, requests=1)
    await back(server, client)

    assert await passes(client, requests=1)


async def test_fail_open_lets_all_pass(server: EmbeddedValkey, client: Coordinator) -> None:
    configure(client, limits={"few": rate(limit=1)}, redis_away="fail_open")
    await client.limits.reserve(PROVIDER, requests=1)
    await away(server, client)

    admitted = [await client.limits.reserve(PROVIDER, requests=1, timeout=NOW) for _ in range(5)]

    assert all(each.local for each in admitted)
    await admitted[0].close()


async def test_local_share_is_a_part_of_the_limit_by_processes_as_last_known(
    server: EmbeddedValkey, client: Coordinator
) -> None:
    async with Coordinator.open(server.url) as other:
        configure(client, other, limits={"few": rate(limit=100, burst=40)})
        for process in (client, other):
            await process.limits.reserve(PROVIDER, requests=1)
        for process in (other, client):
            await process.limits._engine.heartbeat(process._store.keys.limits(PROVIDER)).beat_once()
        await away(server, client)

        passed = [await passes(client, requests=1) for _ in range(25)]

        assert passed == [True] * 20 + [False] * 5


async def test_each_process_has_at_least_one_request_of_a_window(server: EmbeddedValkey, client: Coordinator) -> None:
    configure(client, limits={"few": rate("tokens", 100, burst=100), "open": streams(1)})
    await client.limits.reserve(PROVIDER, tokens=1)
    client.limits._engine.heartbeat(client._store.keys.limits(PROVIDER)).processes = 50
    await away(server, client)

    assert await passes(client, tokens=60)
    assert not await passes(client, tokens=60)
    assert await passes(client, streams=1)
    assert not await passes(client, streams=1)


async def test_those_who_wait_go_by_the_policy_when_redis_goes(server: EmbeddedValkey, client: Coordinator) -> None:
    limits = {
        "open": {"unit": "requests", "limit": 1, "period": 3600, "redis_away": "fail_open"},
        "closed": {"unit": "tokens", "limit": 1, "period": 3600, "redis_away": "fail_closed"},
    }
    configure(client, limits=limits)
    await client.limits.reserve(PROVIDER, requests=1, tokens=1)
    passing = asyncio.ensure_future(client.limits.reserve(PROVIDER, requests=1, timeout=None))
    refused = asyncio.ensure_future(client.limits.reserve(PROVIDER, tokens=1, timeout=None))
    await asyncio.sleep(0.1)

    await away(server, client)

    assert (await asyncio.wait_for(passing, 5)).local
    with pytest.raises(LimitsUnavailable):
        await asyncio.wait_for(refused, 5)


class Load:
    """Ten tasks that ask for more than there is, and what became of their requests."""

    def __init__(self, client: Coordinator) -> None:
        self.shared, self.alone, self.refused = 0, 0, list[LimitError]()
        self._tasks = [asyncio.create_task(self._ask(client)) for _ in range(10)]

    async def _ask(self, client: Coordinator) -> None:
        while True:
            try:
                each = await client.limits.reserve(PROVIDER, requests=1, timeout=timedelta(seconds=0.05))
            except LimitError as error:
                self.refused.append(error)
            else:
                self.alone, self.shared = self.alone + each.local, self.shared + (not each.local)
            await asyncio.sleep(0.005)

    async def until(self, ready: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not ready():
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("policy", "alone", "at_most", "after"),
    [
        # The server comes back without a memory, so its burst is whole again.
        ("fail_closed", 0, 0, 100),
        # One process: its share is the whole of the limit, once.
        ("local_share", 100, 102, 2),
        ("fail_open", 150, 10_000, 2),
    ],
)
async def test_load_goes_on_through_an_outage_by_its_policy_and_there_is_no_herd_after_it(
    server: EmbeddedValkey, client: Coordinator, policy: str, alone: int, at_most: int, after: int
) -> None:
    """What was admitted alone is charged before anything else is, when Redis is back: no second burst on top of it."""
    configure(client, limits={"few": rate(limit=1000, burst=100, period=86_400, redis_away=policy)})
    load = Load(client)
    await load.until(lambda: load.shared >= 100)
    await away(server, client)
    before, refused = load.shared, len(load.refused)
    await load.until(lambda: load.alone >= alone and (alone > 100 or len(load.refused) > refused + 20))
    told = load.refused[refused:]
    await back(server, client)
    refused = len(load.refused)
    await load.until(lambda: len(load.refused) > refused + 30)
    await load.stop()

    assert alone <= load.alone <= at_most
    assert load.shared - before <= after + 2
    if policy == "fail_closed":
        assert load.shared > before, "it goes on when Redis is back"
        assert any(isinstance(each, LimitsUnavailable) for each in told)
    else:
        with pytest.raises(LimitExceeded):
            await client.limits.reserve(PROVIDER, requests=1, timeout=NOW)


async def test_a_share_of_streams_is_no_more_while_redis_is_away_however_long_somebody_waits(
    server: EmbeddedValkey, client: Coordinator
) -> None:
    configure(client, limits={"open": streams(1)})
    await away(server, client)
    held = await client.limits.reserve(PROVIDER, streams=1)
    waiting = [asyncio.ensure_future(client.limits.reserve(PROVIDER, streams=1, timeout=None)) for _ in range(2)]
    await asyncio.sleep(1.3)
    assert not any(task.done() for task in waiting)

    await held.close()
    done, left = await asyncio.wait(waiting, timeout=5, return_when=asyncio.FIRST_COMPLETED)

    (admitted,) = [task.result() for task in done]
    assert admitted.local
    # The other one asks Redis when it is back, and waits there if the first was admitted again before it.
    await back(server, client)
    (waits,), waiters = left, client._store.keys.limits(PROVIDER).keys[1]
    async with asyncio.timeout(10):
        while not waits.done() and not await client._store.command("EXISTS", waiters):
            await asyncio.sleep(0.01)
        await admitted.close()
        last = await waits
    assert not last.local


@pytest.mark.parametrize("first", ["the link", "the subscription"])
async def test_who_still_waits_after_an_outage_asks_behind_what_was_admitted_in_it(
    server: EmbeddedValkey, client: Coordinator, first: str
) -> None:
    """The server comes back without a memory: its bucket would be full for those who waited all the time."""
    configure(client, limits={"few": rate(limit=10, burst=10)})
    assert await passes(client, requests=10)
    waiting = [asyncio.ensure_future(client.limits.reserve(PROVIDER, requests=1, timeout=None)) for _ in range(15)]
    store = client._store
    waiters = store.keys.limits(PROVIDER).keys[1]
    async with asyncio.timeout(10):
        while await store.command("HLEN", waiters) < 15:
            await asyncio.sleep(0.01)
    await away(server, client)
    async with asyncio.timeout(10):
        while sum(task.done() for task in waiting) < 10:
            await asyncio.sleep(0.01)
    if first == "the subscription":
        # Of two connections either may be back first: then there is no link yet to charge anything on.
        store.subscriber.on_restored.remove(client.limits._engine._restored)
        client.limits._engine._restored()
    await back(server, client)
    async with asyncio.timeout(10):
        while sum(task.done() for task in waiting) + await store.command("HLEN", waiters) < 15:
            await asyncio.sleep(0.01)

    done = [task for task in waiting if task.done()]
    assert [task.result().local for task in done] == [True] * 10
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_who_waits_for_its_share_asks_redis_when_it_is_back(server: EmbeddedValkey, client: Coordinator) -> None:
    """Its turn in this process's share alone would be in half an hour."""
    configure(client, limits={"few": rate(limit=2, burst=2)})
    await away(server, client)
    assert await passes(client, requests=1)
    client.limits._engine.heartbeat(client._store.keys.limits(PROVIDER)).processes = 2
    waits = asyncio.ensure_future(client.limits.reserve(PROVIDER, requests=1, timeout=None))
    await asyncio.sleep(0.3)
    assert not waits.done()

    await back(server, client)

    assert not (await asyncio.wait_for(waits, 10)).local


async def test_all_who_wait_ask_again_once_when_their_connections_are_back(
    server: EmbeddedValkey, client: Coordinator
) -> None:
    async with Coordinator.open(server.url) as other, Coordinator.open(server.url) as judge:
        configure(client, other, limits={"open": streams(1)})
        await client.limits.reserve(PROVIDER, streams=1)
        many = [
            asyncio.ensure_future((client, other)[number % 2].limits.reserve(PROVIDER, streams=1, timeout=None))
            for number in range(200)
        ]
        store = judge._store
        waiters = store.keys.limits(PROVIDER).keys[1]

        async def scripts() -> int:
            stats = (await store.command("INFO", "commandstats")).decode()
            return sum(int(line.split("calls=")[1].split(",")[0]) for line in stats.splitlines() if "_eval" in line)

        async with asyncio.timeout(20):
            while await store.command("HLEN", waiters) < 200:
                await asyncio.sleep(0.01)
            await store.command("CONFIG", "RESETSTAT")
            for kind in ("pubsub", "normal"):
                await store.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            while await scripts() < 200:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)

        # Each once; heartbeats and looks of the pump beside them.
        assert 200 <= await scripts() <= 1.2 * 200
        for task in many:
            task.cancel()
        await asyncio.wait(many)


async def test_an_outage_delays_only_its_first_requests(server: EmbeddedValkey, client: Coordinator) -> None:
    configure(client, limits={"few": rate(limit=1)}, redis_away="fail_open")
    await client.limits.reserve(PROVIDER, requests=1)
    await away(server, client)
    await client.limits.reserve(PROVIDER, requests=1)
    began = asyncio.get_running_loop().time()

    for _ in range(20):
        await client.limits.reserve(PROVIDER, requests=1)

    # Twenty times the patience of the first would be five seconds.
    assert asyncio.get_running_loop().time() - began < 4
