"""The assistant's worker: LiveKit's own server, whose main process delivers what calls have left undelivered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from livekit.agents import AgentServer

from coordination.ids import DEFAULT_TENANT
from coordination.persistence import OutboxError, PersistenceSettings
from coordination.persistence.host import deliver_file
from coordination.persistence.outbox.opening import open_outbox
from coordination.settings import CoordinatorSettings

logger = logging.getLogger("agents.solo")


class SoloServer(AgentServer):
    """An `AgentServer`; every option of it works."""

    async def run(self, *, devmode: bool = False, unregistered: bool = False) -> None:
        """As `AgentServer.run`. An outbox that cannot be opened is reported, and keeps no call from coming."""
        async with _delivering():
            await super().run(devmode=devmode, unregistered=unregistered)


@asynccontextmanager
async def _delivering() -> AsyncGenerator[None]:
    settings = PersistenceSettings()
    if not settings.backend_url:
        yield
        return
    try:
        await (await open_outbox(settings, redis_url=None, tenant=DEFAULT_TENANT)).close()
    except OutboxError as fault:
        logger.error("nothing of a call will be saved: %s", fault)
    work = asyncio.create_task(
        deliver_file(settings, only=CoordinatorSettings().tenant), name="solo: deliver what calls have left"
    )
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
