"""The watch over a fleet of real processes: who is found dead, who is not, and what is done about it, once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import StoreUnavailable
from coordination.ids import WorkerId
from coordination.leases.lease import LossReason
from coordination.recovery.fleet import FleetAgent
from coordination.recovery.watcher import WATCHER_TTL, Watcher
from coordination.testing.faults import RedisFaults, inflict
from tests.store.fleets import fleet_agent

WORKER = Path(__file__).with_name("fleet_worker.py")
ROOT = WORKER.parents[2]
BOUND = 20.0
A_WHILE = 2.5
"""Longer than any suspicion takes: what has not happened by then does not."""


class Worker:
    """One process of the fleet, and all that it has said."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name, self.process = name, process
        self.said: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))

    def all(self, what: str) -> list[dict[str, Any]]:
        return [entry for entry in self.said if entry["what"] == what]

    @property
    def watching(self) -> bool:
        posts = [entry["what"] for entry in self.said if entry["what"] in ("watcher", "no watcher")]
        return bool(posts) and posts[-1] == "watcher"

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading


Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def valkey() -> AsyncIterator[EmbeddedValkey]:
    async with EmbeddedValkey() as server:
        yield server


@pytest.fixture
async def start(valkey: EmbeddedValkey) -> AsyncIterator[Start]:
    started: list[Worker] = []

    async def begin(name: str, *call: str) -> Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(WORKER),
            valkey.url,
            name,
            *call,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        worker = Worker(name, process)
        started.append(worker)
        if call:
            await until(lambda: bool(worker.all("holds") or worker.all("stands by")), f"{name} is in its call")
        return worker

    yield begin
    for worker in started:
        await worker.end()


async def until(holds: Callable[[], bool], description: str) -> None:
    try:
        async with asyncio.timeout(BOUND):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {BOUND:g} s: {description}") from None


async def manned(*workers: Worker) -> tuple[Worker, list[Worker]]:
    """The watcher, and the others, once there is one and a deputy stands behind it."""
    await until(lambda: any(worker.watching for worker in workers), "somebody watches")
    watcher = next(worker for worker in workers if worker.watching)
    # The subscriptions are a second old: before that nobody condemns.
    await asyncio.sleep(1.2)
    return watcher, [worker for worker in workers if worker is not watcher]


def told(workers: list[Worker], what: str) -> list[dict[str, Any]]:
    return [entry for worker in workers for entry in worker.all(what)]


async def test_the_agent_of_a_killed_worker_is_silenced_first_and_one_replacement_is_sent_for(start: Start) -> None:
    lost = await start("lost", "call", "billing", "holder")
    others = [await start(f"w{i}") for i in range(3)]
    await manned(lost, *others)

    lost.kill()
    await until(lambda: bool(told(others, "bring")), "a replacement is dispatched")
    await asyncio.sleep(A_WHILE)

    assert told(others, "silence") == [{"what": "silence", "agent": "agent-of-lost"}]
    brought = told(others, "bring")
    assert [(entry["role"], entry["instead_of"]) for entry in brought] == [("billing", "agent-of-lost")]


async def test_a_standby_of_the_role_has_the_floor_and_nobody_is_dispatched(start: Start) -> None:
    lost = await start("lost", "call", "billing", "holder")
    other = await start("other", "call", "technical", "standby")
    heir = await start("heir", "call", "billing", "standby")
    await manned(lost, other, heir)

    lost.kill()
    await until(lambda: bool(heir.all("granted")), "the standby of the role has the floor")
    await asyncio.sleep(A_WHILE)

    survivors = [other, heir]
    assert [entry["agent"] for entry in told(survivors, "silence")] == ["agent-of-lost"]
    assert not told(survivors, "bring")
    assert not other.all("granted")


@pytest.mark.parametrize("fallback", [False, True])
async def test_a_standby_of_another_role_takes_a_call_only_as_a_fallback(
    start: Start, monkeypatch: pytest.MonkeyPatch, fallback: bool
) -> None:
    monkeypatch.setenv("BATON_FALLBACK_ROLES", '{"*": ["receptionist"]}' if fallback else "{}")
    lost = await start("lost", "call", "billing", "holder")
    technical = await start("technical", "call", "technical", "standby")
    receptionist = await start("receptionist", "call", "receptionist", "standby")
    await manned(lost, technical, receptionist)

    lost.kill()
    survivors = [technical, receptionist]
    await until(lambda: bool(told(survivors, "granted") or told(survivors, "bring")), "the call is taken up")

    assert not technical.all("granted")
    assert bool(receptionist.all("granted")) is fallback
    assert bool(told(survivors, "bring")) is not fallback


async def test_the_watcher_dies_with_its_agents_and_its_deputy_takes_them_up(start: Start) -> None:
    first = await start("first", "call", "billing", "holder")
    await until(lambda: first.watching, "the first worker watches")
    others = [await start(f"w{i}") for i in range(2)]
    await manned(first, *others)

    first.kill()
    await until(lambda: any(worker.watching for worker in others), "the deputy watches")
    await until(lambda: bool(told(others, "bring")), "the agent of the dead watcher is replaced")

    assert len(told(others, "bring")) == 1


async def test_the_post_of_a_dead_watcher_is_taken_away_before_its_lease_has_run_out(valkey: EmbeddedValkey) -> None:
    async def nobody(_: FleetAgent, __: str) -> None: ...

    async with Coordinator.open(valkey.url) as dead, Coordinator.open(valkey.url) as living:
        # It gave one sign of life and listens to nothing: dead, but for its lease, which is renewed for ever.
        await dead.fleet.beat(WorkerId("dead"))
        first = Watcher(dead.fleet, dead._engine, WorkerId("dead"), nobody, hang_limit=timedelta(seconds=4))
        post = await dead._engine.acquire(first._request("watcher", WATCHER_TTL), None)
        second = Watcher(living.fleet, living._engine, WorkerId("living"), nobody, hang_limit=timedelta(seconds=4))
        watching = asyncio.create_task(second.run())
        try:
            await until(lambda: second.watching, "the deputy is the watcher")
            assert post.reason is LossReason.REVOKED
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def test_a_watcher_that_was_stopped_and_wakes_up_does_nothing_that_was_done(start: Start) -> None:
    lost = await start("lost", "call", "billing", "holder")
    sleeper = await start("sleeper")
    others = [await start("w")]
    watcher, rest = await manned(lost, sleeper, *others)
    if watcher is lost:
        lost.kill()
        await until(lambda: bool(told([sleeper, *others], "bring")), "the deputy replaces the agent")
        assert len(told([sleeper, *others], "bring")) == 1
        return
    os.kill(watcher.process.pid, signal.SIGSTOP)
    try:
        lost.kill()
        awake = [worker for worker in rest if worker is not lost]
        await until(lambda: bool(told(awake, "bring")), "whoever is awake replaces the agent")
    finally:
        os.kill(watcher.process.pid, signal.SIGCONT)
    await asyncio.sleep(A_WHILE)

    assert len(told([sleeper, *others], "bring")) == 1
    assert sum(worker.watching for worker in (sleeper, *others)) == 1


@pytest.mark.parametrize("fault", ["subscriptions", "restart", "failover"])
async def test_what_happens_to_redis_costs_nobody_the_floor(start: Start, valkey: EmbeddedValkey, fault: str) -> None:
    holder = await start("holder", "call", "billing", "holder")
    others = [await start(f"w{i}") for i in range(2)]
    await manned(holder, *others)
    faults = RedisFaults(valkey)

    if fault == "failover":
        await faults.replicate()
        await inflict(faults.fail_over())
    elif fault == "restart":
        await inflict(faults.restart())
    else:
        for _ in range(3):
            await inflict(faults.drop_subscriptions())
            await asyncio.sleep(A_WHILE / 2)
    await asyncio.sleep(A_WHILE)

    workers = [holder, *others]
    assert not told(workers, "silence")
    assert not told(workers, "bring")
    async with Coordinator.open(valkey.url) as coordinator:
        assert (await coordinator.room("call").floor.state()).holder == "agent-of-holder"


async def test_an_agent_whose_loop_is_blocked_is_lost_although_its_process_lives(
    start: Start, valkey: EmbeddedValkey
) -> None:
    hanging = await start("hanging", "call", "billing", "holder")
    others = [await start(f"w{i}") for i in range(2)]
    await manned(hanging, *others)

    os.kill(hanging.process.pid, signal.SIGSTOP)
    try:
        await until(lambda: bool(told(others, "bring")), "a replacement is dispatched")
    finally:
        os.kill(hanging.process.pid, signal.SIGCONT)
    await until(lambda: bool(hanging.all("given up")), "the agent that wakes up is told that it was replaced")

    assert len(told(others, "bring")) == 1
    async with Coordinator.open(valkey.url) as coordinator:
        assert (await coordinator.room("call").floor.state()).holder is None


async def test_an_agent_that_was_given_up_is_replaced_though_it_and_its_worker_live(
    start: Start, valkey: EmbeddedValkey
) -> None:
    async with Coordinator.open(valkey.url) as coordinator:
        fleet, entry = coordinator.fleet, fleet_agent(coordinator)
        assert not await fleet.abandon(entry.agent), "who is in no call cannot be given up"
        assert await fleet.enter(entry)

        assert await fleet.abandon(entry.agent)
        assert not await fleet.enter(entry), "its heartbeat does not put it back"
        assert not await fleet.leave(entry.agent), "its own end does not hide it from whoever continues its call"
        state = await fleet.read()
        assert (state.abandoned, dict(state.silent)) == ({entry.agent}, {})

        watching = await start("comes later")
        await until(lambda: bool(watching.all("bring")), "a replacement is sent for")
        assert watching.all("bring")[0]["instead_of"] == entry.agent


async def test_a_recovery_that_fails_is_begun_again_until_one_succeeds(valkey: EmbeddedValkey) -> None:
    faults: list[Exception] = [StoreUnavailable("Redis is away"), RuntimeError("a fault of our own")]
    tried: list[str] = []

    async with Coordinator.open(valkey.url) as coordinator:
        fleet, entry = coordinator.fleet, fleet_agent(coordinator)

        async def recover(agent: FleetAgent, reason: str) -> None:
            tried.append(reason)
            if faults:
                raise faults.pop(0)
            await fleet.leave(agent.agent, replaced=True)

        watcher = Watcher(fleet, coordinator._engine, WorkerId("w"), recover, hang_limit=timedelta(seconds=30))
        watching = asyncio.create_task(watcher.run())
        try:
            assert await fleet.enter(entry)
            assert await fleet.abandon(entry.agent)
            await until(lambda: len(tried) == 3, "it is tried a third time")
            await until(lambda: not watcher._recoveries, "it has ended")
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        assert set(tried) == {"its process ends before its call"}
        assert await fleet.agent(entry.agent) is None


async def test_an_agent_that_could_say_nothing_while_redis_was_away_is_not_taken_for_hung(
    valkey: EmbeddedValkey,
) -> None:
    """A chaos run found this: away for 3 s, and whoever spoke next after the watcher had looked was silenced."""
    lost: list[str] = []

    async def recover(agent: FleetAgent, reason: str) -> None:
        lost.append(reason)

    limit = 2.5
    async with Coordinator.open(valkey.url) as coordinator:
        entry = fleet_agent(coordinator)
        watcher = Watcher(
            coordinator.fleet, coordinator._engine, WorkerId("w"), recover, hang_limit=timedelta(seconds=limit)
        )
        watching = asyncio.create_task(watcher.run())
        try:
            await until(lambda: watcher.watching, "somebody watches")
            await coordinator.fleet.enter(entry)

            await inflict(RedisFaults(valkey).stop(lasting=timedelta(seconds=limit)))
            await until(lambda: watcher.watching, "somebody watches again")
            await asyncio.sleep(1.8)
            assert lost == []
            await coordinator.fleet.enter(entry)
            await asyncio.sleep(1.2)
            assert lost == []

            await until(lambda: lost != [], "an agent that goes on saying nothing is lost")
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    assert set(lost) == {"its event loop is blocked"}
