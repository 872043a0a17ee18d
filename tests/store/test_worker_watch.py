"""A worker takes part in the watch over the fleet from the moment on at which LiveKit can send it calls."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.ids import RoomName, WorkerId
from coordination.livekit import CoordinatedServer
from coordination.livekit.worker_watch import WorkerWatch
from coordination.room.roster import Membership
from tests.store.fleets import fleet_agent

SOON = 8.0


class Worker:
    """A worker's part in the fleet; that LiveKit has registered it is what the test says."""

    def __init__(self) -> None:
        self.server = CoordinatedServer(ws_url="ws://127.0.0.1:1", api_key="key", api_secret="secret")
        self.watch = WorkerWatch()

    def register(self) -> None:
        told: Any = self.server
        told.emit("worker_registered", "id", None)


async def known(coordinator: Coordinator, worker: Worker) -> None:
    """Returns when the fleet knows the worker."""
    async with asyncio.timeout(SOON):
        while worker.server.worker_id not in await coordinator.fleet.workers():
            await asyncio.sleep(0.01)


async def watching(worker: Worker) -> None:
    async with asyncio.timeout(SOON):
        while not worker.watch.watching:
            await asyncio.sleep(0.01)


async def test_a_worker_that_livekit_has_not_registered_leaves_the_watch_to_those_it_has(
    valkey: EmbeddedValkey, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that started alone found the lost agents first, and dispatched their replacements to nobody."""
    monkeypatch.setenv("BATON_REDIS_URL", valkey.url)
    first, second = Worker(), Worker()
    async with AsyncExitStack() as until_first_ends:
        await until_first_ends.enter_async_context(first.watch.running(first.server))
        await known(coordinator, first)
        async with second.watch.running(second.server):
            await known(coordinator, second)
            second.register()
            await watching(second)
            assert not first.watch.watching
        first.register()
        await watching(first)


async def test_a_worker_that_livekit_never_registers_ends_as_any_other(
    valkey: EmbeddedValkey, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_REDIS_URL", valkey.url)
    worker = Worker()
    async with worker.watch.running(worker.server):
        await known(coordinator, worker)
    assert worker.server.worker_id not in await coordinator.fleet.workers()


async def test_a_worker_that_drains_asks_all_its_agents_at_once_and_those_that_start_meanwhile(
    valkey: EmbeddedValkey, coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATON_REDIS_URL", valkey.url)
    worker = Worker()

    async def serve(name: str, of: WorkerId) -> Membership:
        entry = replace(fleet_agent(coordinator, name), worker=of, room=RoomName(f"call of {name}"))
        member = await coordinator.room(entry.room).roster.join(agent=entry.agent, role=entry.role, worker=of)
        assert await coordinator.fleet.enter(entry)
        return member

    async with worker.watch.running(worker.server):
        await known(coordinator, worker)
        mine = [await serve(name, worker.server.worker_id) for name in ("a", "b", "c")]
        elsewhere = await serve("d", WorkerId("another"))
        draining = asyncio.create_task(worker.watch.drain())
        async with asyncio.timeout(SOON):
            # None of them leaves: a caller may talk for long.
            for member in mine:
                await member.asked_to_leave.wait()
            late = await serve("e", worker.server.worker_id)
            await late.asked_to_leave.wait()
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
    assert not elsewhere.asked_to_leave.is_set()
