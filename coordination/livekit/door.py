"""Where a worker's main process admits calls: between LiveKit's offer of a job and the answer to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from livekit import api
from livekit.agents import JobRequest
from livekit.agents.job import JobAcceptArguments

from coordination.errors import CoordinationError, LimitError, LimitExceeded, StoreError
from coordination.livekit.admission import LOBBY, CallAdmission, WhenFull
from coordination.livekit.ending import leave_line, refuse_call
from coordination.livekit.job_call import CallOf
from coordination.livekit.process import shared_coordinator
from coordination.settings import CoordinatorSettings

if TYPE_CHECKING:
    from coordination.limits.limits import Limits
    from coordination.limits.reservation import CallLease
    from coordination.livekit.server import CoordinatedServer

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at which of the worker's calls have ended: a list in this process, not in Redis."""

OnRequest = Callable[[JobRequest], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A call that this worker is in."""

    room: str
    """The room's name."""
    lease: CallLease


class CallDoor:
    """The part of a worker that admits its calls, and holds their slots while its agents are in them.

    While Redis is away calls are admitted by what is configured for that; before it could be reached once, all are.
    """

    def __init__(self, admission: CallAdmission) -> None:
        self.admission = admission
        self._server: CoordinatedServer | None = None
        self._held = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._settings = CoordinatorSettings()
        self._limits: Limits | None = None
        self._client: api.LiveKitAPI | None = None
        self._calls: dict[str, _Held] = {}
        """By the sid of the room."""
        self._answering: set[str] = set()

    @asynccontextmanager
    async def running(self, server: CoordinatedServer) -> AsyncGenerator[None]:
        """Raises `InvalidSettings`: a worker that cannot count its calls does not start."""
        self._server, self._settings = server, CoordinatorSettings()
        self._settings.require_redis_url()
        async with self._held:
            try:
                await self._open()
            except StoreError as fault:
                logger.warning("calls are not counted yet: %s", fault)
            watching = asyncio.create_task(self._watch(server), name="baton: which calls have ended")
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                for sid in list(self._calls):
                    await self._leave(sid)

    async def drain(self) -> None:
        """Nothing to do: the slots of the calls that stay are held until the last job has ended."""

    def guard(self, answer: OnRequest | None) -> OnRequest:
        """What answers LiveKit's offers: admission first, then the application's own `on_request`."""

        async def guarded(request: JobRequest) -> None:
            await self.answer(request, answer or _accept)

        return guarded

    async def answer(self, request: JobRequest, then: OnRequest) -> None:
        """Admits the call of a job and lets `then` answer; or does what the policy says."""
        try:
            call = CallOf.read(request.job, tenant=self._settings.tenant)
        except CoordinationError as fault:
            logger.error("a job is rejected, because it cannot be told whose call it is: %s", fault)
            await request.reject()
            return
        sid = request.job.room.sid
        self._answering.add(sid)
        try:
            await self._admit(request, call)
            await then(request)
        except LimitError as refused:
            await self._refuse(request, refused)
        finally:
            self._answering.discard(sid)

    async def _admit(self, request: JobRequest, call: CallOf) -> None:
        """Holds the slot of a call. Raises `LimitError` for a new call that its tenant has no line for."""
        room = request.job.room
        if room.sid in self._calls:
            return
        try:
            limits = await self._open()
            lease = await limits.call(call.name, tenant=call.tenant, continuing=call.admitted)
        except StoreError as fault:
            logger.warning("calls are not counted now: %s", fault)
            return
        except LimitError as refused:
            if not call.admitted:
                raise
            # Its tenant was blocked in mid-call, or is not listed any more: the call goes on all the same.
            logger.warning("a call that was admitted goes on uncounted: %s", refused)
            return
        if room.sid in self._calls:
            # Two agents of one call were offered at once: they share the slot, and one lease keeps it.
            await lease.close()
        else:
            self._calls[room.sid] = _Held(room=room.name, lease=lease)

    async def _open(self) -> Limits:
        """Over the worker's connection, which is closed with it."""
        async with self._opening:
            if self._limits is None:
                opened = shared_coordinator(self._server or self, self._settings)
                coordinator = await self._held.enter_async_context(opened)
                if self.admission.limits is not None:
                    coordinator.limits.configure(self.admission.limits)
                self._limits = coordinator.limits
        return self._limits

    async def _refuse(self, request: JobRequest, refused: LimitError) -> None:
        policy = self.admission.when_full
        if not isinstance(refused, LimitExceeded):
            policy = WhenFull.REJECT  # a tenant that is blocked or unknown: waiting would not help
        logger.info("a call finds no free line (%s): %s", policy.value, refused)
        if policy is WhenFull.REJECT:
            # In this order: LiveKit offers a rejected job to the next worker, which would tell the caller again.
            await refuse_call(self._livekit(), request.room.name)
            await request.reject()
        else:
            await _accept(_marked(request, policy))

    def _livekit(self) -> api.LiveKitAPI:
        """A client of the worker's LiveKit, made for the first call that needs one."""
        if self._client is None:
            assert self._server is not None
            self._client = api.LiveKitAPI(*self._server.livekit)
            self._held.push_async_callback(self._client.aclose)
        return self._client

    async def _leave(self, sid: str) -> None:
        held = self._calls.pop(sid)
        await leave_line(self._livekit(), held.room, held.lease)

    async def _watch(self, server: CoordinatedServer) -> None:
        """Leaves the calls in which this worker has no agent any more."""
        idle: set[str] = set()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            busy = {job.job.room.sid for job in server.active_jobs} | self._answering
            # Twice in a row: a job that was accepted is not in the list at once.
            for sid in (idle & self._calls.keys()) - busy:
                await self._leave(sid)
            idle = self._calls.keys() - busy


async def _accept(request: JobRequest) -> None:
    await request.accept()


def _marked(request: JobRequest, policy: WhenFull) -> JobRequest:
    """The same request; accepted, its agent goes to the lobby."""
    accept = request._on_accept  # pyright: ignore[reportPrivateUsage]  # the only way to what the job will know

    async def marked(arguments: JobAcceptArguments) -> None:
        await accept(replace(arguments, attributes={**(arguments.attributes or {}), LOBBY: policy.value}))

    reject = request._on_reject  # pyright: ignore[reportPrivateUsage]
    return JobRequest(job=request.job, on_reject=reject, on_accept=marked)
