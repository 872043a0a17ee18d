"""The coordinator of a job: opened by the first session that needs it, closed after the last one has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from livekit.agents import JobContext

from coordination.coordinator import Coordinator
from coordination.settings import CoordinatorSettings


@dataclass(slots=True)
class _Shared:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    coordinator: Coordinator | None = None
    users: int = 0


_shared: WeakKeyDictionary[object, _Shared] = WeakKeyDictionary()
"""By owner: a job's context, or a worker. LiveKit runs each job in a process of its own; where it runs them as threads
of one process, or a test runs several in one loop, each still has its own, and can end without the others."""


@asynccontextmanager
async def shared_coordinator(owner: object, settings: CoordinatorSettings) -> AsyncGenerator[Coordinator]:
    """The one coordinator of `owner`, which must be weakly referable. `settings` count for whoever opens it.

    Raises what `Coordinator.open` raises: `InvalidSettings` without a URL, `StoreError` if Redis cannot be used.
    """
    shared = _shared.setdefault(owner, _Shared())
    async with shared.lock:
        if shared.coordinator is None:
            shared.coordinator = await Coordinator.open(settings=settings)
        shared.users += 1
        coordinator = shared.coordinator
    try:
        yield coordinator
    finally:
        async with shared.lock:
            shared.users -= 1
            if shared.users == 0:
                shared.coordinator = None
                await coordinator.close()


@asynccontextmanager
async def until_shutdown(ctx: JobContext) -> AsyncGenerator[AsyncExitStack]:
    """A stack for what a job holds: left after the job has ended, or at once if the block fails."""
    async with AsyncExitStack() as held:
        yield held
        for_the_job = held.pop_all()

    async def leave() -> None:
        await for_the_job.aclose()

    ctx.add_shutdown_callback(leave)
