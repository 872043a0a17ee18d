"""Each fault does what it says, to what it was given, and is undone."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from coordination.dev.livekit_server import LiveKitServer
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import StoreUnavailable
from coordination.ids import new_process_id
from coordination.store.store import Store
from coordination.testing.faults import (
    FaultImpossible,
    RedisFaults,
    Strike,
    Victim,
    inflict,
    kill,
    offspring,
    pause,
    restart_livekit,
)

A_WHILE = timedelta(milliseconds=200)


@pytest.fixture
async def sleeper() -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with a child of its own."""
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    victim = Victim.of(process.pid, "the sleeper")
    while not offspring(victim):
        await asyncio.sleep(0.01)
    children = offspring(victim)
    yield process
    for each in (*children, victim):
        if each.alive:
            await inflict(kill(each))
    await process.wait()


@pytest.fixture
async def valkey() -> AsyncIterator[EmbeddedValkey]:
    async with EmbeddedValkey() as server:
        yield server


async def test_a_killed_process_is_dead_when_the_fault_has_happened(sleeper: asyncio.subprocess.Process) -> None:
    victim = Victim.of(sleeper.pid, "the sleeper")

    strike = await inflict(kill(victim))

    assert not victim.alive
    assert abs(strike.at.wall - time.time()) < 60
    assert strike.at.monotonic <= time.monotonic()
    with pytest.raises(FaultImpossible, match="dead already"):
        await inflict(kill(victim))


async def test_a_paused_process_is_stopped_for_as_long_as_it_lasts(sleeper: asyncio.subprocess.Process) -> None:
    victim = Victim.of(sleeper.pid, "the sleeper")
    states: list[str | None] = []

    strike = await inflict(pause(victim, lasting=A_WHILE), tell=lambda _: states.append(victim.state))

    assert states == ["T"]
    assert victim.state != "T"
    assert strike.until is not None
    assert strike.until.monotonic - strike.at.monotonic >= A_WHILE.total_seconds()


async def test_a_fault_that_is_cancelled_is_undone(sleeper: asyncio.subprocess.Process) -> None:
    victim = Victim.of(sleeper.pid, "the sleeper")
    struck = asyncio.Event()

    def tell(_: Strike) -> None:
        struck.set()

    fault = asyncio.create_task(inflict(pause(victim, lasting=timedelta(minutes=1)), tell=tell))
    await struck.wait()
    fault.cancel()
    await asyncio.gather(fault, return_exceptions=True)

    assert fault.cancelled()
    assert victim.alive
    assert victim.state != "T"


async def test_another_process_with_the_same_pid_is_never_hurt(sleeper: asyncio.subprocess.Process) -> None:
    stranger = Victim(pid=sleeper.pid, name="a process of long ago", born="1")

    with pytest.raises(FaultImpossible):
        await inflict(kill(stranger))

    assert Victim.of(sleeper.pid, "the sleeper").alive


async def test_the_offspring_of_a_process_are_its_descendants_only(sleeper: asyncio.subprocess.Process) -> None:
    (child,) = offspring(Victim.of(sleeper.pid, "the sleeper"))

    assert child.pid != sleeper.pid
    assert offspring(child) == ()


async def test_a_fault_of_redis_waits_out_a_server_that_is_slow_for_longer_than_a_client_waits(
    valkey: EmbeddedValkey,
) -> None:
    faults = RedisFaults(valkey)

    hang = asyncio.create_task(inflict(faults.hang(lasting=timedelta(seconds=2))))
    await asyncio.sleep(0.1)

    assert await faults.command("PING") == b"PONG"
    assert hang.done()


async def keys(faults: RedisFaults) -> set[str]:
    return {key.decode() for key in await faults.command("KEYS", "*")}


async def test_what_becomes_of_the_data_of_a_redis(valkey: EmbeddedValkey) -> None:
    faults = RedisFaults(valkey)
    await faults.command("SET", "a", "1", "EX", "60")
    await faults.remember()
    await faults.command("SET", "b", "1", "EX", "60")

    seen: list[set[str]] = []
    for fault in (faults.restart(), faults.restart_old(), faults.restart_empty()):
        await inflict(fault)
        seen.append(await keys(faults))
    await faults.command("SET", "c", "1", "EX", "60")
    await inflict(faults.stop(lasting=A_WHILE))
    seen.append(await keys(faults))
    await inflict(faults.wipe())
    seen.append(await keys(faults))

    assert seen == [{"a", "b"}, {"a"}, set(), {"c"}, set()]


async def test_an_older_state_must_have_been_kept(valkey: EmbeddedValkey) -> None:
    with pytest.raises(FaultImpossible, match="remember"):
        await inflict(RedisFaults(valkey).restart_old())


async def test_a_replica_that_is_promoted_has_what_was_replicated_and_the_address_of_its_primary(
    valkey: EmbeddedValkey,
) -> None:
    faults, url, first = RedisFaults(valkey), valkey.url, valkey.pid
    await faults.command("SET", "before", "1", "EX", "60")
    await faults.replicate()
    async with Redis.from_url(url, single_connection_client=True) as client:
        # WAIT asks for what its own connection has written.
        await client.set("after", "1", ex=60)
        assert await client.wait(1, 5000) == 1

    await inflict(faults.fail_over())

    assert (await keys(faults), valkey.url) == ({"before", "after"}, url)
    assert valkey.pid not in (None, first)
    assert b"role:master" in await faults.command("INFO", "replication")
    await inflict(faults.restart())
    assert await keys(faults) == {"before", "after"}
    with pytest.raises(FaultImpossible, match="replicate"):
        await inflict(faults.fail_over())


async def test_a_redis_that_is_stopped_or_hangs_is_away_and_comes_back(valkey: EmbeddedValkey) -> None:
    faults = RedisFaults(valkey)
    answers: list[object] = []

    async def probe() -> None:
        store = Store(valkey.url)
        try:
            async with asyncio.timeout(0.15):
                await store.open()
            answers.append("served")
        except (StoreUnavailable, TimeoutError):
            answers.append("away")
        finally:
            await store.close()

    for fault in (faults.stop(lasting=timedelta(seconds=0.5)), faults.hang(lasting=timedelta(seconds=0.5))):
        probes: list[asyncio.Task[None]] = []
        await inflict(fault, tell=lambda _, probes=probes: probes.append(asyncio.create_task(probe())))
        await asyncio.gather(*probes)
        await probe()

    assert answers == ["away", "served"] * 2


async def test_all_subscriptions_end_at_once_and_commands_go_on(valkey: EmbeddedValkey) -> None:
    stores = [Store(valkey.url) for _ in range(3)]
    restored = [asyncio.Event() for _ in stores]
    for store, event in zip(stores, restored, strict=True):
        await store.open()
        await store.subscriber.subscribe(f"channel-{new_process_id()}", lambda _message: None)
        store.subscriber.on_restored.append(event.set)

    await inflict(RedisFaults(valkey).drop_subscriptions())

    async with asyncio.timeout(10):
        for event in restored:
            await event.wait()
    for store in stores:
        assert await store.command("PING")
        await store.close()


async def test_a_restarted_livekit_server_serves_at_its_address() -> None:
    with LiveKitServer() as server:
        address, pid = server.url, server.pid

        await inflict(restart_livekit(server))
        again = server.pid
        await inflict(restart_livekit(server, away=A_WHILE))

        assert len({pid, again, server.pid}) == 3
        assert (server.running, server.url) == (True, address)
