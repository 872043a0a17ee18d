"""The floor between real processes that are killed, stopped and woken."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.settings import CoordinatorSettings
from tests.chaos.processes import BOUND, Start, heard, processes_of, said


@pytest.fixture
async def valkey() -> AsyncIterator[EmbeddedValkey]:
    async with EmbeddedValkey() as server:
        yield server


@pytest.fixture
async def start(valkey: EmbeddedValkey) -> AsyncIterator[Start]:
    """Starts contenders."""
    async with processes_of("contender.py", valkey.url) as started:
        yield started


async def queued(coordinator: Coordinator, many: int) -> None:
    async with asyncio.timeout(BOUND):
        while len((await coordinator.room("call").floor.state()).queue) < many:
            await asyncio.sleep(0.002)


async def test_the_time_with_the_floor_of_no_two_processes_overlaps(start: Start) -> None:
    """Six processes hammer for two seconds; one of them is killed in the middle of it."""
    processes = [await start("hammer", "2") for _ in range(6)]
    await heard(processes[0], "ready")
    await asyncio.sleep(0.7)
    processes[0].kill()
    killed_at = time.monotonic()
    spans: list[tuple[float, float, int]] = []
    for process in processes:
        began: dict[int, float] = {}
        for what, fence, at in await said(process):
            if what == "in":
                began[int(fence)] = float(at)
            elif what == "out":
                spans.append((began.pop(int(fence)), float(at), int(fence)))
        spans += [(at, killed_at, fence) for fence, at in began.items()]
    spans.sort()

    assert len(spans) > 50
    for (_, left, lower), (entered, _, higher) in pairwise(spans):
        assert entered >= left, f"fence {higher} was in before fence {lower} was out"
        assert higher > lower


@pytest.mark.parametrize("before_ms", [0, 1, 2, 5])
async def test_a_waiter_that_is_killed_just_before_the_release_does_not_stop_the_queue(
    start: Start, valkey: EmbeddedValkey, before_ms: int
) -> None:
    async with Coordinator.open(valkey.url, settings=CoordinatorSettings(floor_ttl=timedelta(seconds=30))) as here:
        lease = await here.room("call").floor.request("holder")
        doomed = await start("wait", TTL="30")
        await heard(doomed, "waiting")
        await queued(here, 1)
        heir = asyncio.create_task(here.room("call").floor.request("heir", timeout=None))
        await queued(here, 2)

        doomed.kill()
        await asyncio.sleep(before_ms / 1000)
        await lease.release()

        # A thirtieth of the TTL: not the deadline of the dead one's lease, but the second look, passed it on.
        await (await asyncio.wait_for(heir, 1.0)).release()


async def test_a_waiter_that_is_stopped_does_not_stop_the_queue_and_asks_again_when_it_wakes(
    start: Start, valkey: EmbeddedValkey
) -> None:
    async with Coordinator.open(valkey.url, settings=CoordinatorSettings(floor_ttl=timedelta(seconds=30))) as here:
        lease = await here.room("call").floor.request("holder")
        stopped = await start("wait", TTL="2")
        await heard(stopped, "waiting")
        await queued(here, 1)
        heir = asyncio.create_task(here.room("call").floor.request("heir", timeout=None))
        await queued(here, 2)

        stopped.send_signal(signal.SIGSTOP)
        await lease.release()
        held = await asyncio.wait_for(heir, 1.0)
        stopped.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.3)

        assert held.held
        assert (await here.room("call").floor.state()).holder == "heir"
        await held.release()


async def test_a_monitor_of_all_channels_does_not_count_as_a_waiter(start: Start, valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(valkey.url) as client, client.pubsub() as monitor:
        await monitor.psubscribe("*")
        async with Coordinator.open(valkey.url, settings=CoordinatorSettings(floor_ttl=timedelta(seconds=30))) as here:
            lease = await here.room("call").floor.request("holder")
            doomed = await start("wait", TTL="30")
            await heard(doomed, "waiting")
            await queued(here, 1)
            heir = asyncio.create_task(here.room("call").floor.request("heir", timeout=None))
            await queued(here, 2)
            doomed.kill()
            await doomed.wait()
            await asyncio.sleep(0.05)
            await lease.release()

            await (await asyncio.wait_for(heir, 1.0)).release()


async def test_an_expired_floor_of_a_killed_holder_goes_to_the_waiter(start: Start, valkey: EmbeddedValkey) -> None:
    async with Coordinator.open(valkey.url) as here:
        dying = await start("wait", TTL="0.5")
        await heard(dying, "in")
        heir = asyncio.create_task(here.room("call").floor.request("heir", timeout=None))
        await queued(here, 1)
        dying.kill()

        assert (await asyncio.wait_for(heir, BOUND)).held


async def test_a_seeded_storm_of_stops_and_kills_leaves_a_free_floor(start: Start, valkey: EmbeddedValkey) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    processes = [await start("hammer", "2", TTL="0.5") for _ in range(4)]
    await heard(processes[3], "ready")
    for process in processes[:3]:
        await asyncio.sleep(chance.uniform(0.05, 0.2))
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        process.send_signal(chance.choice([signal.SIGCONT, signal.SIGKILL]))
    for process in processes:
        await asyncio.wait_for(process.communicate(), BOUND)

    async with Coordinator.open(valkey.url) as here:
        assert (await here.room("call").floor.request("last", timeout=timedelta(seconds=5))).held
