"""The coordinator of a process: opened by the first session that needs it, closed after the last one has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from coordination.coordinator import Coordinator
from coordination.settings import CoordinatorSettings


@dataclass(slots=True)
class _Shared:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    coordinator: Coordinator | None = None
    users: int = 0


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()
"""By event loop: jobs that run as threads of one process each have a loop of their own."""


@asynccontextmanager
async def process_coordinator(settings: CoordinatorSettings) -> AsyncIterator[Coordinator]:
    """The one coordinator of this process and loop. `settings` count for whoever opens it.

    Raises what `Coordinator.open` raises: `InvalidSettings` without a URL, `StoreError` if Redis cannot be used.
    """
    shared = _shared.setdefault(asyncio.get_running_loop(), _Shared())
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
