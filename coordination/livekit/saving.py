"""One agent's share in saving its call to the backend, where one is configured; without one none of this exists.

Whoever logs a turn saves it. The holder of the floor notes who calls, saves what a lost colleague left, and ends the
record when the call is over. A call whose agents are all lost is ended by a worker (`coordination.livekit.leftovers`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from livekit import rtc

from coordination.errors import CoordinationError
from coordination.livekit.linking import is_caller
from coordination.persistence.calls import OpenCalls, SavedCall
from coordination.persistence.client import BackendClient
from coordination.persistence.saver import CallSaver
from coordination.persistence.settings import PersistenceSettings
from coordination.persistence.summary import CALLER

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator, Room
    from coordination.livekit.join import JoinPlan

logger = logging.getLogger(__name__)

OVER: Final = "the call is over"
REPORTED_WITHIN: Final = timedelta(seconds=0.5)
"""From an interruption until the session says how much was played."""


class CallSaving:
    """Made when the seat is taken, closed with it."""

    def __init__(self, live: rtc.Room, room: Room, calls: OpenCalls, saver: CallSaver) -> None:
        self._live, self._room, self._calls = live, room, calls
        self.saver = saver
        self._callers: set[str] = set()

    async def on_floor(self, *, takeover: bool) -> None:
        """This agent has the floor: the call is in its care."""
        await self._calls.enter(self.saver.call)
        for participant in self._live.remote_participants.values():
            await self.on_participant(participant)
        if takeover:
            await self.saver.rest()

    async def on_loss(self, fence: int) -> None:
        """The floor is lost. How much was heard of what was being said is reported a moment later."""
        await asyncio.sleep(REPORTED_WITHIN.total_seconds())
        self.saver.release(fence=fence)

    async def on_participant(self, participant: rtc.RemoteParticipant) -> None:
        """Notes a caller, so that whoever ends the record can count them all."""
        mark = hashlib.sha256(participant.identity.encode()).hexdigest()[:16]
        if is_caller(participant) and mark not in self._callers:
            self._callers.add(mark)
            await self._room.events.publish(CALLER, reason=mark)

    async def close(self, *, over: bool, alone_for: timedelta) -> None:
        """Makes durable what this agent knows; if the call is over, and was in its care, its record as well."""
        try:
            if not over:
                await self.saver.close()
                return
            ended = datetime.now(UTC) - alone_for
            await self.saver.finish(self._room.events, reason=OVER, ended=ended)
            await self._calls.leave(self.saver.call.session)
        except CoordinationError as fault:
            logger.warning("the record of a call is not saved yet; a worker will see to it: %s", fault)


async def open_saving(
    stack: AsyncExitStack, coordinator: Coordinator, room: Room, plan: JoinPlan, live: rtc.Room
) -> CallSaving | None:
    """None without a backend, or with one that cannot be used as it is configured: a call begins all the same."""
    try:
        settings = PersistenceSettings()
        if not settings.backend_url:
            return None
        client = BackendClient(settings, outbox=coordinator.outbox(plan.tenant)).start()
    except CoordinationError as fault:
        logger.error("nothing of this call is saved: %s", fault)
        return None
    stack.push_async_callback(client.close)
    call = SavedCall(session=room.name, room=live.name, conversation=plan.conversation or room.name, user=plan.user)
    return CallSaving(live, room, coordinator.open_calls(plan.tenant), CallSaver(room.turns, client, call))
