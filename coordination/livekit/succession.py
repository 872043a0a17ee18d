"""Stepping in: a call whose floor is left without a holder gets one of the agents that are in the room.

Only a standby steps in, the one that was ready to take the floor first, then the others in the order in which they
joined, a moment apart. The call of an agent that was *lost* is the recovery's to hand on, to the right role: a standby
of another role waits until that has surely come to nothing. Whether the old holder may be replaced is decided by the
floor itself, after LiveKit has confirmed that it is silent (the rule of expiry).
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
from coordination.recovery.replacement import GIVE_UP, TAKEOVER, fallbacks_of
from coordination.room.floor import FloorState

if TYPE_CHECKING:
    from coordination.livekit.seat import Seat

logger = logging.getLogger(__name__)

FREE_FOR = timedelta(milliseconds=500)
"""A floor that was just released is usually about to be taken; a call without holder for longer needs one."""
APART = timedelta(milliseconds=300)
"""Between two agents that could step in, so that they don't all try at once."""


LAST_RESORT = timedelta(seconds=40)
"""After so long without a holder any agent is better than none: recovery itself has given up by then, or is dead."""


class Succession:
    """Watches the floor for one standby."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._tasks: list[asyncio.Task[None]] = []
        self._last: FloorState | None = None
        """The newest state in which somebody held the floor."""
        self._vacant_since = 0.0

    def begin(self) -> None:
        if not self._tasks:
            self._tasks = [
                self._seat.keep(self._watch, "watch the floor"),
                self._seat.keep(self._accept_grant, "wait for an operator's grant"),
                # Should Redis be lost together with the holder, this agent is the one that knows the story.
                self._seat.keep(self._seat.room.turns.read_along, "read along"),
                self._seat.keep(self._seat.room.context.read_along, "read the context along"),
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
                if not self._vacant(state):
                    due = await self._due(state)
                    continue
                wait = await self._wait_for_recovery(state)
                if wait <= timedelta(0):
                    await self._step_in(state)
                    wait = timedelta(0)
                due = await self._due(state) + wait.total_seconds()
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    def _vacant(self, state: FloorState) -> bool:
        if state.holder is None:
            return not state.queue
        return state.expires_in is not None and state.expires_in <= timedelta(0)

    async def _wait_for_recovery(self, state: FloorState) -> timedelta:
        """How long this agent should leave the floor to the recovery of a lost holder."""
        seat, last = self._seat, self._last
        if last is None or last.holder is None or not seat.plan.settings.takeover or seat.target.ready:
            return timedelta(0)
        if last.role == seat.role or seat.role in fallbacks_of(last.role or "", seat.plan.settings.fallback_roles):
            return timedelta(0)
        if state.holder is None and last.holder not in await seat.room.roster.removed():
            return timedelta(0)
        return LAST_RESORT - timedelta(seconds=time.monotonic() - self._vacant_since)

    async def _due(self, state: FloorState) -> float:
        """When it is this agent's turn to look whether the floor is vacant, on the monotonic clock."""
        if state.holder is not None:
            self._last = state
        if not self._vacant(state):
            self._vacant_since = time.monotonic() + max(0.0, (state.expires_in or timedelta(0)).total_seconds())
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
        await self._hold(lease, state.role)
        await self._withdraw_offer()

    async def _hold(self, lease: Lease, from_role: str | None, *, given_up: bool = False) -> None:
        entry = self._seat.target.entry_after_loss()
        if entry is None:
            story = Continuation(
                kind=EntryKind.TAKEOVER, from_role=from_role, reason="the agent is gone", given_up=given_up
            )
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
        reason = (await seat.room.floor.state()).reason
        if reason.startswith((TAKEOVER, GIVE_UP)):
            await self._hold(lease, None, given_up=reason.startswith(GIVE_UP))
            await self._withdraw_offer()
            return
        story = Continuation(kind=EntryKind.HANDOFF, reason="an operator gave you the floor")
        await seat.hold(lease, Entry(kind=EntryKind.HANDOFF, continuation=story))


async def _next(states: AsyncIterator[FloorState]) -> FloorState:
    """`anext` as a coroutine, so that it can be a task."""
    return await anext(states)
