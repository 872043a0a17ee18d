"""A worker takes part in the watch over the fleet from the moment on at which LiveKit can send it calls."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.dev.valkey import EmbeddedValkey
from coordination.livekit import CoordinatedServer
from coordination.livekit.worker_watch import WorkerWatch

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
