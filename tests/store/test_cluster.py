"""A Cluster whose nodes are killed, hang, fail over, and whose slots move under those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from redis.asyncio import RedisCluster

from coordination.coordinator import Coordinator
from coordination.dev.checks import Finding, Verdict, check_redis
from coordination.dev.ports import LOOPBACK
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import StoreRefused
from coordination.settings import CoordinatorSettings
from coordination.store.cluster import ClusterTopology
from coordination.store.store import Store
from tests.store.failovers import a_handoff_is_finished, a_limit_holds
from tests.store.limited import PROVIDER
from tests.store.servers import (
    BOUND,
    SERVED_WITHIN,
    Cluster,
    Node,
    eventually,
    nothing_left,
    running,
    waits_for_floor,
)

PATIENT = CoordinatorSettings(floor_ttl=timedelta(seconds=10))
"""Leases outlive the failovers here, so that what is seen is the failover and no expiry."""
LOCKS = [f"invoice:{number}" for number in range(24)]
"""They hash to 16 tags, and these to all three primaries."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole_cluster() -> AsyncIterator[Cluster]:
    """For tests that leave the primaries where they are."""
    async with running(Cluster) as cluster:
        yield cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """One that may be broken."""
    async with running(Cluster) as cluster:
        yield cluster


@pytest.fixture
async def here(cluster: Cluster) -> AsyncIterator[Coordinator]:
    async with Coordinator.open(cluster.url, settings=PATIENT) as coordinator:
        yield coordinator


@pytest.fixture
async def there(cluster: Cluster) -> AsyncIterator[Coordinator]:
    """Another process, as far as the servers can tell."""
    async with Coordinator.open(cluster.url, settings=PATIENT) as coordinator:
        yield coordinator


def topology(coordinator: Coordinator) -> ClusterTopology:
    found = coordinator._store.topology
    assert isinstance(found, ClusterTopology)
    return found


def floor_key(coordinator: Coordinator) -> str:
    return coordinator.room("call").floor._keys.lease


async def eternal_keys(cluster: Cluster) -> list[bytes]:
    found: list[bytes] = []
    for node in cluster.nodes:
        if node.running and await node.role() == "master":
            found += [name for name in await node.call("KEYS", "*") if await node.call("PTTL", name.decode()) == -1]
    return found


async def test_locks_on_all_primaries_are_passed_on_and_subscribed_once_a_primary(whole_cluster: Cluster):
    async with Coordinator.open(whole_cluster.url) as here, Coordinator.open(whole_cluster.url) as there:
        held = [await here.acquire_lock(name) for name in LOCKS]
        waiting = [asyncio.create_task(there.acquire_lock(name)) for name in LOCKS]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        for lease in held:
            await lease.release()
        passed = await asyncio.wait_for(asyncio.gather(*waiting), BOUND)

        assert all(new.fence > old.fence for new, old in zip(passed, held, strict=True))
        assert len(topology(there)._links) == len(topology(there).subscriptions._nodes) == 3
        for lease in passed:
            await lease.release()
    assert await eternal_keys(whole_cluster) == []


async def test_a_whole_room_works_in_a_cluster(whole_cluster: Cluster):
    async with Coordinator.open(whole_cluster.url) as here, Coordinator.open(whole_cluster.url) as there:
        async with here.room("meeting").floor.hold("a") as lease:
            await here.room("meeting").context.update({"invoice": 42}, lease=lease)
            waiting = await waits_for_floor(there, here, "b", room="meeting")
        assert await asyncio.wait_for(waiting, BOUND) > lease.fence
        assert (await there.read_context("meeting")).data == {"invoice": 42}


async def test_channels_are_counted_at_the_primaries_that_carry_them(whole_cluster: Cluster):
    async with Coordinator.open(whole_cluster.url) as here, Coordinator.open(whole_cluster.url) as there:
        channels = [f"baton:1:{{watched/{number}}}:p:x" for number in range(12)]
        for channel in channels[:6]:
            await here._store.subscriber.subscribe(channel, lambda _: None)

        counts = await there._store.subscribers(channels)

        assert counts == dict.fromkeys(channels[:6], 1) | dict.fromkeys(channels[6:], 0)


async def test_a_cluster_client_of_the_application_is_taken(whole_cluster: Cluster):
    client = RedisCluster(host=LOOPBACK, port=whole_cluster.nodes[1].port)
    try:
        async with Coordinator.open(client) as coordinator:
            leases = [await coordinator.acquire_lock(name) for name in LOCKS]
            await asyncio.gather(*(lease.release() for lease in leases))
    finally:
        await client.aclose()


async def test_doctor_names_the_primary_that_evicts(whole_cluster: Cluster):
    odd = whole_cluster.nodes[1]

    async def eviction() -> Finding:
        return next(one for one in await check_redis(whole_cluster.url) if one.subject == "eviction")

    assert (await eviction()).verdict is Verdict.OK
    await odd.call("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    try:
        with pytest.raises(StoreRefused, match="volatile-lru"):
            await Store(whole_cluster.url).open()
        found = await eviction()
        assert (found.verdict, repr(odd) in found.text) == (Verdict.FAULT, True)
    finally:
        await odd.call("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_a_server_that_is_no_cluster_is_refused(valkey: EmbeddedValkey):
    with pytest.raises(StoreRefused, match="cluster support disabled"):
        await Store(valkey.url.replace("redis://", "redis+cluster://").removesuffix("/0")).open()


async def lose(cluster: Cluster, here: Coordinator, there: Coordinator, *, hang: bool) -> None:
    """The primary of the floor goes; who waits is served by its replica, who uses others notices nothing."""
    key = floor_key(here)
    held = await here.room("call").floor.request("holder")
    waiting = await waits_for_floor(there, here, "waiter")
    others = [await here.acquire_lock(name) for name in LOCKS]
    primary = await cluster.owner(key)

    if hang:
        primary.stop()
    else:
        primary.kill()
    await cluster.promoted(key, primary)
    async with asyncio.timeout(SERVED_WITHIN):
        await held.release()
        fence = await waiting
        await asyncio.gather(*(lease.release() for lease in others))
    if hang:
        primary.wake()

    assert fence > held.fence
    for _ in range(20):
        later = await there.room("call").floor.request("later")
        assert later.fence > fence
        fence = later.fence
        await later.release()
        await asyncio.sleep(0.02)
    await nothing_left(here)
    assert await eternal_keys(cluster) == []


async def test_waiters_are_served_when_a_node_is_lost(cluster: Cluster, here: Coordinator, there: Coordinator):
    await lose(cluster, here, there, hang=False)


async def test_waiters_are_served_when_a_node_hangs_and_comes_back(
    cluster: Cluster, here: Coordinator, there: Coordinator
):
    await lose(cluster, here, there, hang=True)


async def test_an_idle_waiter_is_served_after_an_orderly_failover(
    cluster: Cluster, here: Coordinator, there: Coordinator
):
    """The old primary lives on as a replica, where a subscription would be heard but not counted."""
    key = floor_key(here)
    held = await here.room("call").floor.request("holder")
    waiting = await waits_for_floor(there, here, "waiter")
    primary = await cluster.owner(key)
    replica = await replica_of(cluster, primary)

    async with Coordinator.open(cluster.url, settings=CoordinatorSettings(acknowledge_replicas=1)) as careful:
        confirmed = [await careful.acquire_lock(name) for name in LOCKS]
        await replica.call("CLUSTER", "FAILOVER")
        await cluster.promoted(key, primary)
        async with asyncio.timeout(SERVED_WITHIN):
            await held.release()
            fence = await waiting

        assert fence > held.fence
        await nothing_left(there)
        again = await eventually(lambda: careful.room("call").floor.request("x"), "the old primary confirms a grant")
        for lease in (*confirmed, again):
            await lease.release()


async def replica_of(cluster: Cluster, primary: Node) -> Node:
    for node in cluster.nodes:
        role = await node.call("ROLE")
        if role[0] == b"slave" and role[2] == primary.port:
            return node
    raise AssertionError(f"{primary} has no replica")


async def test_waiters_are_served_after_their_slot_moved_to_another_primary(
    cluster: Cluster, here: Coordinator, there: Coordinator
):
    key = floor_key(here)
    held = await here.room("call").floor.request("holder")
    first = await waits_for_floor(there, here, "first")
    second = await waits_for_floor(here, there, "second")
    primary = await cluster.owner(key)
    target = next(node for node in cluster.nodes[:3] if node is not primary)

    await cluster.move_slot(key, target)
    async with asyncio.timeout(SERVED_WITHIN):
        await held.release()
        fences = {held.fence, await first, await second}

    # Whoever is subscribed again first is served first.
    assert (len(fences), min(fences)) == (3, held.fence)
    assert await cluster.owner(key) is target
    await nothing_left(here)
    assert await eternal_keys(cluster) == []


async def test_a_lease_is_renewed_and_released_while_its_slot_is_on_its_way(cluster: Cluster, here: Coordinator):
    """Half of the keys here, half there: the servers refuse what touches both until the move is over."""
    key = floor_key(here)
    held = await here.room("call").floor.request("holder")
    source = await cluster.owner(key)
    target = next(node for node in cluster.nodes[:3] if node is not source)
    slot = await source.call("CLUSTER", "KEYSLOT", key)
    await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", await cluster.id_of(source))
    await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", await cluster.id_of(target))
    await source.call("MIGRATE", LOOPBACK, target.port, key, 0, 1000)

    releasing = asyncio.create_task(held.release())
    await asyncio.sleep(0.2)
    assert not releasing.done()
    await cluster.move_slot(key, target)

    assert await asyncio.wait_for(releasing, SERVED_WITHIN)
    await nothing_left(here)


async def test_a_key_that_has_moved_already_is_followed_to_its_new_node(cluster: Cluster, here: Coordinator):
    key = "baton:1:{asked}:x"
    source = await cluster.owner(key)
    target = next(node for node in cluster.nodes[:3] if node is not source)
    slot = await source.call("CLUSTER", "KEYSLOT", key)
    await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", await cluster.id_of(source))
    await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", await cluster.id_of(target))

    await here._store.command("SET", key, "1", "PX", 60_000)

    assert await target.call("CLUSTER", "COUNTKEYSINSLOT", slot) == 1
    assert await source.call("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
    assert await here._store.command("GET", key) == b"1"


async def test_a_handoff_that_a_lost_node_interrupts_is_finished_afterwards(
    cluster: Cluster, here: Coordinator, there: Coordinator
):
    key = floor_key(here)
    primary = await cluster.owner(key)

    async def failover() -> None:
        primary.kill()
        await cluster.promoted(key, primary)

    await a_handoff_is_finished(here, there, failover)


async def test_a_limit_holds_when_its_node_is_lost_and_no_request_of_it_is_lost(
    cluster: Cluster, here: Coordinator, there: Coordinator
):
    key = here._store.keys.limits(PROVIDER).keys[0]
    primary = await cluster.owner(key)

    async def failover() -> None:
        primary.kill()
        await cluster.promoted(key, primary)

    await a_limit_holds(here, there, failover)

    assert await eternal_keys(cluster) == []
