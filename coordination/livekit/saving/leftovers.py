"""The worker's part in saving: it delivers what killed jobs have left undelivered, and ends records that nobody ends.

Every worker does so for the tenants that it serves, and for this host's file of calls without coordination
(`coordination.persistence.host`). Two at once do no harm: turns and records carry keys.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from coordination.ids import DEFAULT_TENANT, RoomName, Tenant
from coordination.livekit.process import shared_coordinator
from coordination.persistence.client import BackendClient
from coordination.persistence.erasures import Erasures, concerns
from coordination.persistence.errors import BackendError
from coordination.persistence.host import again_and_again, deliver_file
from coordination.persistence.saver import CallSaver
from coordination.persistence.settings import PersistenceSettings
from coordination.persistence.values import Erasure, SavedCall
from coordination.settings import CoordinatorSettings

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator
    from coordination.livekit.server import CoordinatedServer

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = timedelta(seconds=3)
LEFT_AFTER: Final = timedelta(seconds=6)
"""A call without a live agent for so long is over, or will be taken up by one that saves the record again. Well within
the half minute for which the room's history outlives its last agent."""
FORGET_EVERY: Final = timedelta(seconds=10)
"""How often the backend is asked what it has erased."""
REDIS_AGAIN: Final = timedelta(seconds=1)
LOST: Final = "its agents were lost"


class Leftovers:
    """A `WorkerPart`. Does nothing without a backend."""

    @asynccontextmanager
    async def running(self, server: CoordinatedServer) -> AsyncGenerator[None]:
        """Raises `InvalidSettings` for a backend that is configured wrongly: before the first call, not in it."""
        settings, backend = CoordinatorSettings(), PersistenceSettings()
        if not backend.backend_url:
            yield
            return
        await BackendClient(backend).close()
        works = [deliver_file(backend, only=settings.tenant)]
        if settings.coordination == "on" and settings.redis_url is not None:
            works.append(self._serve(server, settings, backend))
        tasks = [asyncio.create_task(work, name="baton: deliver what calls have left") for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self) -> None:
        """Nothing to do: what is left is delivered until the worker ends, and then by others."""

    async def _serve(
        self, server: CoordinatedServer, settings: CoordinatorSettings, backend: PersistenceSettings
    ) -> None:
        async def serve() -> None:
            async with AsyncExitStack() as parts:
                coordinator = await parts.enter_async_context(shared_coordinator(server, settings))
                round_ = Round(coordinator, backend, parts)
                known = {settings.tenant} if settings.tenant else {DEFAULT_TENANT, *backend.backend_tokens}
                while True:
                    await round_.go({*map(Tenant, known), *await _tenants(coordinator, server)})
                    await asyncio.sleep(LOOK_EVERY.total_seconds())

        await again_and_again(serve, of="calls", every=REDIS_AGAIN)


async def _tenants(coordinator: Coordinator, server: CoordinatedServer) -> set[Tenant]:
    return {agent.tenant for agent in (await coordinator.fleet.read()).of_worker(server.worker_id)}


class Round:
    """Goes from call to call, again and again; `parts` outlives it."""

    def __init__(self, coordinator: Coordinator, settings: PersistenceSettings, parts: AsyncExitStack) -> None:
        self._coordinator, self._settings, self._parts = coordinator, settings, parts
        self._clients: dict[Tenant, BackendClient] = {}
        self._empty_since: dict[RoomName, float] = {}
        self._forget_at: dict[Tenant, float] = {}

    async def go(self, tenants: set[Tenant]) -> None:
        """Once through the calls of these tenants, and of those that were named before. Raises `StoreError`."""
        for tenant in tenants - self._clients.keys():
            outbox = self._coordinator.outbox(tenant)
            client = BackendClient(self._settings, tenant=tenant, outbox=outbox).start()
            self._parts.push_async_callback(client.close)
            self._clients[tenant] = client
        seen: set[RoomName] = set()
        for tenant, client in self._clients.items():
            if self._forget_at.get(tenant, 0.0) <= time.monotonic():
                self._forget_at[tenant] = time.monotonic() + FORGET_EVERY.total_seconds()
                await self.forget(tenant, client)
            for call in await self._coordinator.open_calls(tenant).read():
                seen.add(call.session)
                await self._look(tenant, client, call)
        self._empty_since = {name: since for name, since in self._empty_since.items() if name in seen}

    async def forget(self, tenant: Tenant, client: BackendClient) -> None:
        """Removes from outbox and Redis what the backend has erased since the last time."""
        calls = self._coordinator.open_calls(tenant)

        async def forget(erasure: Erasure) -> None:
            if erasure.user is not None:
                await self._coordinator.context(f"user:{erasure.user}").forget()
            for call in await calls.read():
                if concerns(erasure, conversation=call.conversation, user=call.user):
                    async with self._coordinator.visit(call.session, tenant=tenant, silencer=None) as room:
                        await room.forget()

        erasures = Erasures(client, self._coordinator.outbox(tenant), forget=forget, since=await calls.erased_until())
        try:
            await erasures.follow()
        except BackendError as fault:
            logger.debug("the backend does not say what it has erased: %s", fault)
            return
        if erasures.cursor is not None:
            await calls.note_erased(erasures.cursor)

    async def _look(self, tenant: Tenant, client: BackendClient, call: SavedCall) -> None:
        async with self._coordinator.visit(call.session, tenant=tenant, silencer=None) as room:
            if any(member.alive for member in await room.roster.members()):
                self._empty_since.pop(call.session, None)
                return
            since = self._empty_since.setdefault(call.session, time.monotonic())
            if time.monotonic() - since < LEFT_AFTER.total_seconds():
                return
            await CallSaver(room.turns, client, call).finish(room.events, reason=LOST)
        await self._coordinator.open_calls(tenant).leave(call.session)
        logger.info("the record of a call whose agents were lost is saved")
