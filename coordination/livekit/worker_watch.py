"""The worker's part in the fleet: its sign of life, its share in the watch, and a word when one of its jobs dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from livekit import api

from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError, StoreError
from coordination.ids import AgentId, WorkerId
from coordination.livekit.calls import LiveKitCalls
from coordination.livekit.job_processes import with_job_processes
from coordination.livekit.process import shared_coordinator
from coordination.recovery.watcher import Watcher
from coordination.settings import CoordinatorSettings

if TYPE_CHECKING:
    from coordination.livekit.server import CoordinatedServer

logger = logging.getLogger(__name__)

ASK_EVERY = 0.5
"""Seconds between two looks at which agents a draining worker still has."""
GIVE_UP_WITHIN = 2.0
"""Seconds for giving the calls of this worker up; what is not given up by then is found by its missing heartbeats."""
OUT_OF_TIME = "its worker's drain timeout has run out"
REDIS_AGAIN = 1.0
"""Seconds between attempts to join the watch while Redis is away: the worker serves its calls meanwhile."""


class WorkerWatch:
    """A `WorkerPart`. Does nothing where coordination or takeover is off."""

    def __init__(self) -> None:
        self._coordinator: Coordinator | None = None
        self._worker: WorkerId | None = None
        self._watcher: Watcher | None = None
        self._serving: asyncio.Task[None] | None = None
        self._registered = asyncio.Event()
        self._reports: set[asyncio.Task[None]] = set()

    @property
    def watching(self) -> bool:
        """Whether this worker is the watcher of the fleet now."""
        return self._watcher is not None and self._watcher.watching

    @asynccontextmanager
    async def running(self, server: CoordinatedServer) -> AsyncGenerator[None]:
        settings = CoordinatorSettings()
        if settings.coordination == "off" or not settings.takeover or settings.redis_url is None:
            yield
            return
        events: Any = server  # The SDK leaves the callbacks of its emitter untyped.

        def registered(*_: object) -> None:
            self._registered.set()

        events.on("worker_registered", registered)
        with_job_processes(server, self._follow_jobs)
        self._serving = asyncio.create_task(self._serve(server, settings), name="baton: the watch over the fleet")
        try:
            yield
        finally:
            await self._end()

    async def drain(self) -> None:
        """Asks each agent of this worker to leave its call to another; the worker watches on until the last has."""
        if self._coordinator is None or self._worker is None:
            return
        asked: set[AgentId] = set()
        while True:
            try:
                await self._ask_all(self._coordinator, self._worker, asked)
            except CoordinationError as error:
                logger.warning("the calls of this worker are not moved yet: %s", error)
            await asyncio.sleep(ASK_EVERY)

    async def give_up_calls(self) -> None:
        """The drain timeout has run out: LiveKit ends the jobs that are left, and each would leave its call in order.

        So their calls are given up for lost first, and this worker leaves the watch: another one continues them, now or
        when one comes up.
        """
        try:
            async with asyncio.timeout(GIVE_UP_WITHIN):
                if self._coordinator is not None and self._worker is not None:
                    await self._give_up_all(self._coordinator, self._worker)
                await self._end()
        except (CoordinationError, TimeoutError) as fault:
            logger.warning("calls of this worker are not given up for lost: %r", fault)

    async def _give_up_all(self, coordinator: Coordinator, worker: WorkerId) -> None:
        for agent in (await coordinator.fleet.read()).of_worker(worker):
            room = coordinator.room(agent.room, tenant=agent.tenant)
            # A standby can leave as it is: its call has a holder.
            if (await room.floor.state()).holder == agent.agent and await coordinator.fleet.abandon(agent.agent):
                logger.warning("a call could not be moved away in time and is left to the other workers")
                await room.roster.remove(agent.agent, reason=OUT_OF_TIME)

    async def _end(self) -> None:
        """Leaves the fleet: another worker takes over what this one watched."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()
            await asyncio.gather(serving, *self._reports, return_exceptions=True)

    async def _ask_all(self, coordinator: Coordinator, worker: WorkerId, asked: set[AgentId]) -> None:
        """A job that starts during the drain is asked as well."""
        for agent in (await coordinator.fleet.read()).of_worker(worker):
            if agent.agent not in asked:
                room = coordinator.room(agent.room, tenant=agent.tenant)
                if await room.roster.ask_to_leave(agent.agent, reason="its worker drains"):
                    asked.add(agent.agent)

    async def _serve(self, server: CoordinatedServer, settings: CoordinatorSettings) -> None:
        while True:
            try:
                await self._take_part(server, settings)
            except StoreError as error:
                logger.warning("this worker does not take part in the watch yet: %s", error)
                await asyncio.sleep(REDIS_AGAIN)

    async def _take_part(self, server: CoordinatedServer, settings: CoordinatorSettings) -> None:
        async with AsyncExitStack() as parts:
            coordinator = await parts.enter_async_context(shared_coordinator(server, settings))
            client = api.LiveKitAPI(*server.livekit)
            parts.push_async_callback(client.aclose)
            await parts.enter_async_context(coordinator.presence(server.worker_id, server.told).kept())
            self._coordinator, self._worker = coordinator, server.worker_id
            self._watcher = coordinator.watcher(server.worker_id, LiveKitCalls(client))
            try:
                # If this worker is the only one, what it dispatches before LiveKit knows it reaches nobody. A worker
                # that LiveKit refuses never asks for a post, so nobody waits for it.
                await self._registered.wait()
                await self._watcher.run()
            finally:
                self._coordinator = self._watcher = None

    # -- jobs of this worker ----------------------------------------------------------------------

    def _follow_jobs(self, pool: Any) -> None:
        """The parent of a job process knows of its end within milliseconds."""
        pool.on("process_closed", self._on_process_closed)

    def _on_process_closed(self, process: Any) -> None:
        if process.running_job is None:
            return
        report = asyncio.create_task(
            self._report(AgentId(process.running_job.job.id)), name="baton: report a job's end"
        )
        self._reports.add(report)
        report.add_done_callback(self._reports.discard)

    async def _report(self, agent: AgentId) -> None:
        """A job that ended well has taken itself off the registry before; one that is still there has died."""
        if self._coordinator is None or self._watcher is None:
            return
        try:
            lost = await self._coordinator.fleet.agent(agent)
        except CoordinationError as error:
            logger.warning("the end of a job could not be reported, the watch will find it: %s", error)
            return
        if lost is not None:
            self._watcher.recover(lost, "its process ended")
