"""The assistant's worker: LiveKit's own server, whose main process delivers what calls have left undelivered.

A job delivers what it saves while it runs. What a killed one left, or one that ended without the backend, lies in
the outbox of this host: it is delivered from here, whether another call comes or not.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from livekit.agents import AgentServer

from coordination.persistence import BackendClient, OutboxError, PersistenceSettings

logger = logging.getLogger("agents.solo")


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
            await parts.enter_async_context(BackendClient.open(settings))
        except OutboxError as fault:
            logger.error("what earlier calls left is not delivered: %s", fault)
        yield
