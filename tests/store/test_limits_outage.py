"""Redis away: each policy, by stopping a real server under load and bringing it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

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


async def test_load_goes_on_through_an_outage_and_there_is_no_herd_after_it(
    server: EmbeddedValkey, client: Coordinator
) -> None:
    """What was admitted alone is charged when Redis is back: there is no second burst on top of it."""
    configure(client, limits={"few": rate(limit=1000, burst=100)})
    admitted: list[Any] = []

    async def load() -> None:
        while True:
            try:
                admitted.append(await client.limits.reserve(PROVIDER, requests=1, timeout=timedelta(seconds=0.05)))
            except LimitError:
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(load()) for _ in range(10)]
    await asyncio.sleep(0.3)
    await away(server, client)
    await asyncio.sleep(0.5)
    await back(server, client)
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    alone = [each for each in admitted if each.local]
    assert alone
    # The burst before, this process's share while the server (which forgot all) was away, and next to nothing after.
    assert len(admitted) <= 100 + len(alone) + 15
    with pytest.raises(LimitExceeded):
        await client.limits.reserve(PROVIDER, requests=1, timeout=NOW)


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
