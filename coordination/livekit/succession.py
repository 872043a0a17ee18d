"""Stepping in: a call whose floor is left without a holder gets one of the agents that are in the room.

Only a standby steps in, the one that was ready to take the floor first, then the others in the order in which they
joined, a moment apart. Whether the old holder may be replaced is decided by the floor itself, after LiveKit has
confirmed that it is silent (the rule of expiry).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING

from livekit import rtc

from coordination.ids import AgentId
from coordination.leases.lease import Lease
from coordination.livekit.entry import Continuation, Entry, EntryKind
from coordination.livekit.identity import agent_of, is_agent
from coordination.room.floor import FloorState

if TYPE_CHECKING:
    from coordination.livekit.seat import Seat

logger = logging.getLogger(__name__)

FREE_FOR = timedelta(milliseconds=500)
"""A floor that was just released is usually about to be taken; a call without holder for longer needs one."""
APART = timedelta(milliseconds=300)
"""Between two agents that could step in, so that they don't all try at once."""


class Succession:
    """Watches the floor for one standby."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        if not self._tasks:
            self._tasks = [
                self._seat.keep(self._watch, "watch the floor"),
                self._seat.keep(self._accept_grant, "wait for an operator's grant"),
            ]

    def end(self) -> None:
        """Stops watching; the task that is taking the floor right now goes on."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._tasks = []

    def on_participant(self, participant: rtc.RemoteParticipant) -> None:
        """An agent that was silenced and comes back is removed again by the holder."""
        agent = agent_of(participant.identity)
        if agent is not None and is_agent(participant) and self._seat.holds:
            self._seat.spawn(self._remove_if_replaced(agent), "look at an agent that joined")

    async def _remove_if_replaced(self, agent: AgentId) -> None:
        if agent in await self._seat.room.roster.removed():
            await self._seat.silencer.silence(agent)

    async def _watch(self) -> None:
        states = self._seat.room.floor.watch()
        following: asyncio.Task[FloorState] | None = None
        state = await anext(states)
        due = await self._due(state)
        try:
            while True:
                following = following or asyncio.create_task(_next(states), name="baton: next state of the floor")
                await asyncio.wait([following], timeout=max(0.0, due - time.monotonic()))
                if following.done():
                    newer, following = following.result(), None
                    if newer.holder is not None or newer.fence != state.fence:
                        due = await self._due(newer)
                    state = newer
                    continue
                state = await self._seat.room.floor.state()
                if self._vacant(state):
                    await self._step_in(state)
                due = await self._due(state)
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    def _vacant(self, state: FloorState) -> bool:
        if state.holder is None:
            return not state.queue
        return state.expires_in is not None and state.expires_in <= timedelta(0)

    async def _due(self, state: FloorState) -> float:
        """When it is this agent's turn to look whether the floor is vacant, on the monotonic clock."""
        wait = FREE_FOR if state.holder is None else max(state.expires_in or timedelta(0), timedelta(0))
        return time.monotonic() + (wait + await self._rank() * APART).total_seconds() + 0.01

    async def _rank(self) -> int:
        if self._seat.target.ready:
            return 0
        members = [member.agent for member in await self._seat.room.roster.members() if member.alive]
        return 1 + (members.index(self._seat.agent) if self._seat.agent in members else len(members))

    async def _step_in(self, state: FloorState) -> None:
        seat = self._seat
        if not seat.call.caller_present:
            return
        for member in await seat.room.roster.members():
            if member.identity:
                seat.silencer.introduce(member.agent, member.identity)
        lease = await seat.room.floor.take_over(seat.agent, role=seat.role)
        if lease is None:
            return
        if state.holder is not None and state.holder != seat.agent:
            logger.info("the holder of the floor is gone; stepping in")
            await seat.room.roster.remove(state.holder, reason="its lease of the floor expired")
        await self._hold(lease, state)
        await self._withdraw_offer()

    async def _hold(self, lease: Lease, state: FloorState) -> None:
        entry = self._seat.target.entry_after_loss()
        if entry is None:
            story = Continuation(kind=EntryKind.TAKEOVER, from_role=state.role, reason="the agent is gone")
            entry = Entry(kind=EntryKind.TAKEOVER, continuation=story)
        await self._seat.hold(lease, entry)

    async def _withdraw_offer(self) -> None:
        """An offer of the old holder has nobody left to commit it, and would be in the way of the next one."""
        handoff = await self._seat.room.handoffs.current()
        if handoff is not None and handoff.open:
            await self._seat.room.handoffs.abort(handoff.id, reason="the agent that offered it is gone")

    async def _accept_grant(self) -> None:
        seat = self._seat
        lease = await seat.room.floor.expect_grant(
            seat.agent, role=seat.role, request_id=seat.room.floor.accept_grants(seat.agent), timeout=None
        )
        story = Continuation(kind=EntryKind.TAKEOVER, reason="an operator gave you the floor")
        await seat.hold(lease, Entry(kind=EntryKind.TAKEOVER, continuation=story))


async def _next(states: AsyncIterator[FloorState]) -> FloorState:
    """`anext` as a coroutine, so that it can be a task."""
    return await anext(states)
