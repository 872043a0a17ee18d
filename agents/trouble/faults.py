"""What the faults of the shipped scenarios do to a stack, by the names that the scenarios call them."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from coordination import Coordinator
from coordination.dev import DevStack
from coordination.dev.workers import WorkerProcess
from coordination.errors import CoordinationError
from coordination.testing.faults import FaultImpossible, RedisFaults, inflict
from coordination.testing.runner import FaultAction

HURT_WORKERS: Final = frozenset({"kill-worker", "restart-workers"})
AWAY: Final = timedelta(seconds=30)
"""How long Redis is gone."""
DRAINED_WITHIN: Final = timedelta(seconds=60)


class StackFaults:
    """The faults of one stack. `struck` is when the first of them happened (`time.monotonic()`), None before."""

    def __init__(self, stack: DevStack, coordinator: Coordinator, *, calls: int) -> None:
        self._stack, self._coordinator = stack, coordinator
        self._all_there = asyncio.Barrier(calls)
        self.struck: float | None = None
        self._restart: asyncio.Task[None] | None = None
        self._away: asyncio.Task[None] | None = None

    @property
    def actions(self) -> Mapping[str, FaultAction]:
        """What the names stand for. A fault of the whole stack strikes once, however many calls ask for it."""
        return {
            "kill-worker": self._kill_worker_of,
            "restart-workers": self._restart_workers,
            "workers-restarted": self._restarted,
            "redis-away": self._take_redis,
            "redis-back": self._redis_is_back,
        }

    async def close(self) -> None:
        """Waits for what is under way: a fault is never left in the middle."""
        under_way = [task for task in (self._restart, self._away) if task is not None]
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _kill_worker_of(self, sid: str) -> None:
        """SIGKILL to all processes of the worker whose agent has the floor, as when a machine dies."""
        holder = (await self._coordinator.room(sid).floor.state()).holder
        members = await self._coordinator.room(sid).roster.members()
        ids = {member.worker for member in members if member.agent == holder}
        victims = [worker for worker in self._stack.workers if worker.fleet_id in ids]
        if not victims:
            raise FaultImpossible("Nobody has the floor whose worker could be killed.")
        self._strikes()
        victims[0].kill()

    async def _restart_workers(self, _sid: str) -> None:
        """Begins a rolling restart as soon as all calls have come to this step."""
        await self._all_there.wait()
        if self._restart is None:
            self._strikes()
            self._restart = asyncio.create_task(self._roll(), name="restart all workers")

    async def _restarted(self, _sid: str) -> None:
        assert self._restart is not None, "the scenario restarts the workers first"
        await asyncio.shield(self._restart)

    async def _roll(self) -> None:
        for worker in self._stack.workers:
            await _restart(worker)

    async def _take_redis(self, _sid: str) -> None:
        """Begins 30 seconds without Redis; returns when it is gone."""
        if self._stack.valkey is None:
            raise FaultImpossible("Redis is not this stack's: it cannot be taken away.")
        gone = asyncio.Event()
        fault = RedisFaults(self._stack.valkey).stop(lasting=AWAY)

        async def run() -> None:
            await inflict(fault, tell=lambda _: gone.set())

        self._strikes()
        self._away = asyncio.create_task(run(), name="Redis is away")
        waiting = asyncio.create_task(gone.wait())
        await asyncio.wait([self._away, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._away.done():
            self._away.result()

    async def _redis_is_back(self, _sid: str) -> None:
        assert self._away is not None, "the scenario takes Redis away first"
        await asyncio.shield(self._away)
        while True:
            try:
                await self._coordinator.fleet.workers()
                return
            except CoordinationError:
                await asyncio.sleep(0.1)

    def _strikes(self) -> None:
        if self.struck is None:
            self.struck = time.monotonic()


async def _restart(worker: WorkerProcess) -> None:
    """SIGTERM, the end by itself, a new one that is registered: what a rolling restart does to one pod."""
    worker.send_signal(signal.SIGTERM)
    async with asyncio.timeout(DRAINED_WITHIN.total_seconds()):
        while worker.running:
            await asyncio.sleep(0.05)
    worker.kill()  # sweeps what the main process left behind
    worker.spawn()
    await worker.register()
