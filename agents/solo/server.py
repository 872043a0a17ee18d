"""The assistant's worker: LiveKit's own server, whose main process delivers what calls have left undelivered.

A job delivers what it saves while it runs. What a killed one left, or one that ended without the backend, lies in
the outbox of this host: it is delivered from here, whether another call comes or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final

from livekit.agents import AgentServer

from coordination.persistence import BackendClient, OutboxError, PersistenceError, PersistenceSettings
from coordination.persistence.erasures import Erasures, nothing_else

logger = logging.getLogger("agents.solo")

FORGET_EVERY: Final = timedelta(seconds=10)
"""How often the backend is asked what it has erased."""


class SoloServer(AgentServer):
    """An `AgentServer`; every option of it works."""

    async def run(self, *, devmode: bool = False, unregistered: bool = False) -> None:
        """As `AgentServer.run`. An outbox that cannot be opened is reported, and keeps no call from coming."""
        async with _draining():
            await super().run(devmode=devmode, unregistered=unregistered)


@asynccontextmanager
async def _draining() -> AsyncGenerator[None]:
    settings = PersistenceSettings()
    if not settings.backend_url:
        yield
        return
    async with AsyncExitStack() as parts:
        try:
            backend = await parts.enter_async_context(BackendClient.open(settings))
        except OutboxError as fault:
            logger.error("what earlier calls left is not delivered: %s", fault)
            yield
            return
        following = asyncio.create_task(_follow_erasures(backend), name="solo: forget what the backend has erased")
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _follow_erasures(backend: BackendClient) -> None:
    """What the backend erases goes from this host's outbox as well."""
    assert backend.outbox is not None
    erasures = Erasures(backend, backend.outbox, forget=nothing_else)
    while True:
        try:
            await erasures.follow()
        except PersistenceError as fault:
            logger.debug("the backend does not say what it has erased: %s", fault)
        await asyncio.sleep(FORGET_EVERY.total_seconds())
