"""The idle job processes of a worker: a used one is replaced when the job that took it has begun, not while it begins.

A new process would take the CPU time that it needs to start from a caller who waits: the most where a dead worker has
left several calls at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from coordination.livekit.job_processes import with_job_processes

if TYPE_CHECKING:
    from coordination.livekit.server import CoordinatedServer

BEGINS_WITHIN = 1.0
"""Seconds in which a job joins its room and says its first word. A burst of jobs shares them, so the pool is not
left empty for longer. A job that finds no idle process gets one of its own at any time."""
AGAIN = 0.05
"""Seconds until the pool is told again: the framework tells it otherwise twice a second, and it looks ten times."""


class Spares:
    """A `WorkerPart`."""

    def __init__(self) -> None:
        self._holding: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self, server: CoordinatedServer) -> AsyncGenerator[None]:
        with_job_processes(server, self._follow_jobs)
        try:
            yield
        finally:
            if self._holding is not None:
                self._holding.cancel()

    async def drain(self) -> None:
        """Nothing to do: who drains begins no job."""

    def _follow_jobs(self, pool: Any) -> None:
        def launched(*_: object) -> None:
            if self._holding is None or self._holding.done():
                self._holding = asyncio.create_task(self._hold(pool), name="baton: let a job begin")

        pool.on("process_job_launched", launched)

    async def _hold(self, pool: Any) -> None:
        wanted = pool.target_idle_processes
        over = asyncio.get_running_loop().time() + BEGINS_WITHIN
        try:
            while asyncio.get_running_loop().time() < over:
                pool.set_target_idle_processes(0)
                await asyncio.sleep(AGAIN)
        finally:
            pool.set_target_idle_processes(wanted)
