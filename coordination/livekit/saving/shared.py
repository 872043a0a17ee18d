"""One agent's share in saving its call to the backend, where one is configured; without one none of this exists.

Whoever logs a turn saves it. The holder of the floor notes who calls, saves what a lost colleague left, and ends the
record when the call is over. A call whose agents are all lost is ended by a worker (see `leftovers`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from livekit import rtc

from coordination.errors import CoordinationError, StoreError
from coordination.ids import AgentId, Fence, RoleName, TurnId
from coordination.livekit.linking import is_caller
from coordination.persistence.calls import OpenCalls
from coordination.persistence.client import BackendClient
from coordination.persistence.errors import BackendError, PersistenceError
from coordination.persistence.saver import CallSaver
from coordination.persistence.settings import PersistenceSettings
from coordination.persistence.summary import CALLER
from coordination.persistence.values import Message, SavedCall, Speaker
from coordination.room.turns import Speaker as Who
from coordination.room.turns import Turn

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator, Room
    from coordination.livekit.join import JoinPlan

logger = logging.getLogger(__name__)

OVER: Final = "the call is over"
AGAIN: Final = timedelta(seconds=0.2)
EARLIER: Final = 50
"""Messages that an agent begins with where Redis has lost the call: what a model can use."""
REPORTED_WITHIN: Final = timedelta(seconds=0.5)
"""From an interruption until the session says how much was played."""


class CallSaving:
    """Made when the seat is taken, closed with it."""

    def __init__(self, live: rtc.Room, room: Room, calls: OpenCalls, saver: CallSaver, backend: BackendClient) -> None:
        self._live, self._room, self._calls, self._backend = live, room, calls, backend
        self.saver = saver
        self._callers: set[str] = set()

    async def on_floor(self, *, takeover: bool) -> None:
        """This agent has the floor: the call is in its care."""
        await self._calls.enter(self.saver.call)
        for participant in self._live.remote_participants.values():
            await self.on_participant(participant)
        if takeover:
            await self.saver.rest()
        try:
            await self.saver.tell(await self._room.events.read())
        except PersistenceError as fault:
            logger.warning("other services are told later what happened in the call: %s", fault)

    async def on_return(self) -> None:
        """Redis is back, and may have forgotten that this call is being saved, and who called."""
        self._callers.clear()
        while True:
            try:
                await self.on_floor(takeover=False)
                return
            except StoreError as fault:
                logger.debug("the call is taken into care again in a moment: %s", fault)
                await asyncio.sleep(AGAIN.total_seconds())

    async def earlier(self) -> Sequence[Turn]:
        """What the backend has of this conversation, as turns; none if it does not answer in time."""
        try:
            found = await self._backend.get_recent_messages(self.saver.call.conversation, limit=EARLIER)
        except BackendError as fault:
            logger.warning("what was said so far is not known: %s", fault)
            return ()
        return [_as_turn(message) for message in found.messages]

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
        client = BackendClient(settings, tenant=plan.tenant, outbox=coordinator.outbox(plan.tenant)).start()
    except CoordinationError as fault:
        logger.error("nothing of this call is saved: %s", fault)
        return None
    stack.push_async_callback(client.close)
    call = SavedCall(session=room.name, room=live.name, conversation=plan.conversation or room.name, user=plan.user)
    return CallSaving(live, room, coordinator.open_calls(plan.tenant), CallSaver(room.turns, client, call), client)


def _as_turn(message: Message) -> Turn:
    """As the turn log had it. Those that nobody of the call said, such as a colleague, read as an agent's."""
    caller = message.speaker is Speaker.CALLER
    return Turn(
        id=TurnId(f"saved-{message.fence}-{message.sequence}"),
        fence=Fence(message.fence),
        seq=message.sequence,
        speaker=Who.CALLER if caller else Who.AGENT,
        agent=AgentId(message.agent or "unknown"),
        role=RoleName(message.role or str(message.speaker)),
        text=message.text,
        played=message.played_seconds,
        ended=True,
        at=message.at or datetime.now(UTC),
    )
