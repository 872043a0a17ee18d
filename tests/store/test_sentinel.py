"""A primary under Sentinels that is killed, failed over, hangs, or loses what it granted last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from redis.asyncio.sentinel import Sentinel

from coordination.coordinator import Coordinator
from coordination.dev.ports import LOOPBACK
from coordination.errors import InvalidSettings, StoreUnavailable
from coordination.leases.lease import LossReason
from coordination.settings import CoordinatorSettings
from coordination.store.store import Store
from tests.store.failovers import a_handoff_is_finished, a_limit_holds
from tests.store.servers import (
    BOUND,
    SERVED_WITHIN,
    Node,
    SentinelTrio,
    eventually,
    nothing_left,
    running,
    waits_for_floor,
)

PATIENT = CoordinatorSettings(floor_ttl=timedelta(seconds=10))
"""Leases outlive the failovers here, so that what is seen is the failover and no expiry."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_trio() -> AsyncIterator[SentinelTrio]:
    """For tests that leave the primary where it is."""
    async with running(SentinelTrio) as trio:
        yield trio


@pytest.fixture
async def trio() -> AsyncIterator[SentinelTrio]:
    """One that may be broken."""
    async with running(SentinelTrio) as trio:
        yield trio
        primary = await trio.primary()
        if not primary.running:
            # One Sentinel can name the dead one for a moment longer than the others.
            primary = await trio.promoted(other_than=primary)
        names = [name.decode() for name in await primary.call("KEYS", "*")]
        eternal = [name for name in names if await primary.call("PTTL", name) == -1]
        assert not eternal, f"these keys have no TTL: {eternal}"


@pytest.fixture
async def here(trio: SentinelTrio) -> AsyncIterator[Coordinator]:
    async with Coordinator.open(trio.url, settings=PATIENT) as coordinator:
        yield coordinator


@pytest.fixture
async def there(trio: SentinelTrio) -> AsyncIterator[Coordinator]:
    """Another process, as far as the servers can tell."""
    async with Coordinator.open(trio.url, settings=PATIENT) as coordinator:
        yield coordinator


async def test_waiters_and_newcomers_are_served_when_the_primary_is_killed(
    trio: SentinelTrio, here: Coordinator, there: Coordinator
):
    held = await here.room("call").floor.request("holder")
    waiting = await waits_for_floor(there, here, "waiter")
    primary = await trio.primary()

    async with Coordinator.open(trio.url, settings=CoordinatorSettings(acknowledge_replicas=1)) as careful:
        await (await careful.acquire_lock("confirmed")).release()
        primary.kill()
        newcomer = asyncio.create_task(there.acquire_lock("new", timeout=timedelta(seconds=BOUND)))
        await trio.promoted(primary)
        async with asyncio.timeout(SERVED_WITHIN):
            assert await held.release()
            fence = await waiting
            await (await newcomer).release()

        assert fence > held.fence
        again = await eventually(lambda: careful.acquire_lock("confirmed"), "the other replica confirms a grant")
        await again.release()
    await nothing_left(here)


async def test_an_idle_waiter_is_served_after_an_orderly_failover(
    trio: SentinelTrio, here: Coordinator, there: Coordinator
):
    """Nothing is sent for longer than the failover takes: the waiter finds the new primary by itself."""
    held = await here.room("call").floor.request("holder")
    waiting = await waits_for_floor(there, here, "waiter")
    primary = await trio.primary()

    await trio.sentinels[1].call("SENTINEL", "FAILOVER", trio.service)
    await trio.promoted(primary)
    async with asyncio.timeout(SERVED_WITHIN):
        await held.release()
        fence = await waiting

    assert fence > held.fence
    await nothing_left(there)


async def test_waiters_are_served_when_the_primary_hangs_and_nobody_goes_back_to_it(
    trio: SentinelTrio, here: Coordinator, there: Coordinator
):
    held = await here.room("call").floor.request("holder")
    waiting = await waits_for_floor(there, here, "waiter")
    primary = await trio.primary()

    primary.stop()
    promoted = await trio.promoted(primary)
    async with asyncio.timeout(SERVED_WITHIN):
        await held.release()
        fence = await waiting
    primary.wake()

    assert fence > held.fence
    for _ in range(20):
        later = await here.room("call").floor.request("later")
        assert later.fence > fence
        fence = later.fence
        await later.release()
        assert (here._store.label, there._store.label) == (repr(promoted), repr(promoted))
        await asyncio.sleep(0.02)
    await nothing_left(there)


async def test_fences_grow_and_the_holder_keeps_its_lease_when_the_promoted_replica_missed_the_grant(
    trio: SentinelTrio, here: Coordinator, there: Coordinator
):
    primary = await trio.primary()
    before = await here.room("call").floor.request("before")
    await before.release()
    await stop_replication(primary)
    held = await here.room("call").floor.request("holder")

    primary.kill()
    promoted = await trio.promoted(primary)

    async def claimed() -> bool:
        return (await there.room("call").floor.state()).holder == "holder"

    await eventually(claimed, "the holder claims its lease at the new primary", SERVED_WITHIN)
    assert held.held
    assert (await there.room("call").floor.state()).fence >= held.fence
    waiting = await waits_for_floor(there, here, "waiter")
    await held.release()
    assert await asyncio.wait_for(waiting, BOUND) > held.fence
    assert repr(promoted) == here._store.label


async def stop_replication(primary: Node) -> None:
    """The replicas keep what they have and get nothing more."""
    await primary.call("ACL", "SETUSER", "default", "-psync", "-sync")
    await primary.call("CLIENT", "KILL", "TYPE", "replica")


async def test_of_two_holders_at_the_promoted_replica_the_one_with_the_higher_fence_remains(
    trio: SentinelTrio, here: Coordinator, there: Coordinator
):
    """The first process is cut off while another one is granted the lock by a primary that never saw its lease."""
    primary = await trio.primary()
    await stop_replication(primary)
    first = await here.acquire_lock("twice")
    here._engine.keeper._timers[first.request_id].cancel()
    here._store.subscriber.on_restored.clear()

    primary.kill()
    await trio.promoted(primary)
    second = await there.acquire_lock("twice", timeout=timedelta(seconds=BOUND))
    await here._engine.keeper.renew(first)

    assert second.fence > first.fence
    assert (first.held, first.reason) == (False, LossReason.SUPERSEDED)
    assert second.held
    await second.release()


async def test_a_handoff_that_a_failover_interrupts_is_finished_afterwards(
    trio: SentinelTrio, here: Coordinator, there: Coordinator
):
    primary = await trio.primary()

    async def failover() -> None:
        primary.kill()
        await trio.promoted(primary)

    await a_handoff_is_finished(here, there, failover)


async def test_a_sentinel_that_hangs_or_is_gone_is_passed_over(whole_trio: SentinelTrio):
    whole_trio.sentinels[0].stop()
    whole_trio.sentinels[1].kill()
    try:
        async with Coordinator.open(whole_trio.url) as coordinator:
            await (await coordinator.acquire_lock("x")).release()
    finally:
        whole_trio.sentinels[0].wake()
        await whole_trio.sentinels[1].start()


async def test_a_client_that_a_sentinel_made_is_followed(whole_trio: SentinelTrio):
    manager = Sentinel([(LOOPBACK, node.port) for node in whole_trio.sentinels])
    client = manager.master_for(whole_trio.service)
    replicas = manager.slave_for(whole_trio.service)
    try:
        async with Coordinator.open(client) as coordinator:
            lease = await coordinator.acquire_lock("x")
            assert coordinator._store.label == repr(await whole_trio.primary())
            await lease.release()
        with pytest.raises(InvalidSettings, match="master_for"):
            Store(replicas)
    finally:
        await client.aclose()
        await replicas.aclose()
        for sentinel in manager.sentinels:
            await sentinel.aclose()


async def test_an_unknown_service_and_sentinels_that_are_not_there_are_named(whole_trio: SentinelTrio):
    with pytest.raises(StoreUnavailable, match="watches no service 'other'"):
        await Store(whole_trio.url.replace(whole_trio.service, "other")).open()
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 "):
        await Store("redis+sentinel://127.0.0.1:1/house").open()


async def test_a_limit_holds_over_a_failover_and_no_request_of_it_is_lost(
    trio: SentinelTrio, here: Coordinator, there: Coordinator
):
    primary = await trio.primary()

    async def failover() -> None:
        primary.kill()
        await trio.promoted(primary)

    await a_limit_holds(here, there, failover)

    assert here._store.connected
    assert there._store.connected
