"""Handing the caller over from a tool: make before break.

The tool call is let go of first, so that the conversation really goes on while the next agent prepares; nothing here
awaits an interruption or a swap of agents, for both wait for the tool. Until the floor has moved, in one script, the
old agent keeps it, whatever goes wrong; then it learns the reason and can tell the caller.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from livekit.agents import RunContext
from pydantic import JsonValue

from coordination.errors import (
    CoordinationError,
    DispatchFailed,
    HandoffError,
    HandoffFailed,
    HandoffInProgress,
    LeaseError,
)
from coordination.handoff.context import HandoffContext
from coordination.handoff.protocol import Handoff, HandoffState
from coordination.ids import AgentId, RoleName, check_name
from coordination.leases.lease import Lease
from coordination.livekit.dispatch import DispatchMetadata
from coordination.livekit.utterance import LATE, UtteranceNote, UtteranceState, tell
from coordination.metrics import METRICS
from coordination.room.members import MemberState

if TYPE_CHECKING:
    from coordination.livekit.seat import Seat

logger = logging.getLogger(__name__)

HEAD_START = timedelta(milliseconds=30)
"""A note goes through the media server, the grant through Redis: the new agent must know of an open utterance first.
It costs nothing, for it is the caller who speaks."""
LOOK_EVERY = timedelta(milliseconds=5)
"""How often the turn boundary is looked for: the framework reports most of its states, not all."""


async def handoff_to(
    context: RunContext[Any],
    role: str,
    *,
    summary: str,
    reason: str = "",
    facts: Mapping[str, JsonValue] | None = None,
    opening: str | None = None,
    announce: str | None = None,
    deadline: timedelta | None = None,
) -> str | None:
    """Hands the caller over to the agent that serves `role`; to be called, and its result returned, by a tool.

    A standby of that role in the room takes over; if there is none, one is dispatched, once. Meanwhile the conversation
    goes on: the tool call is released before anything else (`RunContext.update`). The floor moves at a turn
    boundary, when the new agent is ready.

    - `summary`, `reason` and `facts` (JSON) go along as data; the history does so by itself.
    - `opening` is what the new agent says first. Rendered while it prepares, it is heard without delay.
    - `announce` is said by this agent at once: "One moment, I connect you."
    - `deadline` bounds the preparation.

    Returns None when the floor has moved: the tool returns it, and this agent says nothing more. Returns the reason,
    as a sentence for the model, when the handoff came to nothing; then this agent still has the floor. Never raises
    for a handoff that fails, nor for arguments a model made up. If the tool is cancelled, the offer is withdrawn.
    """
    from coordination.livekit.session import CoordinatedSession

    session = context.session
    seat = session.seat if isinstance(session, CoordinatedSession) else None
    if seat is None:
        return f"The caller cannot be handed to {role!r}: this session runs without coordination."
    try:
        request = _request(
            seat, role, HandoffContext(reason=reason, summary=summary, facts=dict(facts or {}), opening=opening)
        )
    except (CoordinationError, ValueError, TypeError) as fault:
        return f"The caller cannot be handed to {role!r}: {fault}"
    await context.update(f"The handoff to {role} is being prepared; the conversation goes on meanwhile.", silent=True)
    if announce:
        session.say(announce)
    departure = Departure(seat, request, deadline=deadline or seat.plan.settings.handoff_deadline)
    try:
        await departure.run()
    except HandoffFailed as failure:
        METRICS.handoff(departure.kind, "failed")
        logger.info("%s", failure)
        return str(failure)
    METRICS.handoff(departure.kind, "committed")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffRequest:
    """A handoff that may be tried: who has the floor, and where it should go."""

    lease: Lease
    role: RoleName
    context: HandoffContext


def _request(seat: Seat, role: str, context: HandoffContext) -> HandoffRequest:
    wanted = RoleName(check_name(role, "role"))
    lease = seat.lease
    if lease is None or not lease.held:
        raise HandoffFailed(role, "this agent does not have the floor")
    if wanted == seat.role:
        raise HandoffFailed(role, "this agent serves that role itself")
    if seat.departure is not None:
        raise HandoffFailed(role, f"a handoff to {seat.departure.role!r} is under way already")
    context.encode()
    return HandoffRequest(lease=lease, role=wanted, context=context)


@dataclass(slots=True)
class Departure:
    """The old agent's side of one handoff, from the offer until its last utterance is transcribed."""

    seat: Seat
    request: HandoffRequest
    deadline: timedelta
    kind: str = "standby"
    handoff: Handoff | None = None
    target_identity: str = ""
    told_open: bool = field(default=False, init=False)
    """The new agent waits for the end of an utterance."""
    moved_at: float = field(default=math.inf, init=False)
    """`time.time()` at which this agent knew that the floor had moved."""

    @property
    def role(self) -> RoleName:
        return self.request.role

    async def run(self) -> None:
        """Returns when the floor has moved. Raises `HandoffFailed`; then the offer is withdrawn."""
        self.seat.departure = self
        try:
            await self._run()
        except BaseException as fault:
            self.seat.departure = None
            await self._withdraw("cancelled" if isinstance(fault, asyncio.CancelledError) else str(fault))
            if isinstance(fault, CoordinationError) and not isinstance(fault, HandoffFailed):
                raise self._failed(str(fault)) from fault
            raise

    async def _run(self) -> None:
        began = time.monotonic()
        self.handoff = await self._offer()
        await self._bring_target(self.handoff)
        await self._until_ready(self.handoff)
        METRICS.handoff_phase(self.kind, "prepare", time.monotonic() - began)
        at_boundary = time.monotonic()
        await self._at_boundary(self.handoff)
        METRICS.handoff_phase(self.kind, "boundary", time.monotonic() - at_boundary)
        await self._commit(self.handoff)

    async def _offer(self) -> Handoff:
        try:
            return await self.seat.room.handoffs.offer(
                self.request.lease, to_role=self.role, context=self.request.context, deadline=self.deadline
            )
        except HandoffInProgress as other:
            raise self._failed(f"a handoff to {other.to_role!r} is under way already") from other

    async def _bring_target(self, handoff: Handoff) -> None:
        """Dispatches an agent, unless one that serves the role is in the room or on its way."""
        members = await self.seat.room.roster.members()
        if any(
            each.role == self.role
            and each.agent != self.seat.agent
            and each.alive
            and each.state is not MemberState.LEAVING
            for each in members
        ):
            return
        self.kind = "dispatched"
        metadata = DispatchMetadata(tenant=self.seat.plan.tenant, handoff=handoff.id).format()
        try:
            await self.seat.dispatcher.dispatch(self.role, metadata=metadata)
        except DispatchFailed as failure:
            raise self._failed(str(failure)) from failure

    async def _until_ready(self, handoff: Handoff) -> None:
        """Returns with a target that is ready. Its death, the deadline and the loss of the floor end the wait."""
        claimed = False
        waiting = asyncio.create_task(self._follow_to_ready(handoff), name="baton: wait for the target")
        lost = asyncio.create_task(self.request.lease.lost.wait(), name="baton: watch the own floor")
        try:
            await asyncio.wait(
                [waiting, lost], timeout=self.deadline.total_seconds(), return_when=asyncio.FIRST_COMPLETED
            )
            if waiting.done():
                waiting.result()
                return
            if lost.done():
                raise self._failed("this agent lost the floor before")
            current = await self.seat.room.handoffs.current()
            claimed = current is not None and current.id == handoff.id and current.to_agent is not None
        finally:
            for task in (waiting, lost):
                task.cancel()
            await asyncio.gather(waiting, lost, return_exceptions=True)
        seconds = f"{self.deadline.total_seconds():g} s"
        if claimed:
            raise self._failed(f"the agent was not ready within {seconds}")
        raise self._failed(f"no agent of that role took it within {seconds}; perhaps no worker serves it")

    async def _follow_to_ready(self, handoff: Handoff) -> None:
        async for current in self.seat.room.handoffs.watch():
            if current.id != handoff.id or current.state is HandoffState.ABORTED:
                raise self._failed(current.reason or "it was withdrawn")
            if current.state is HandoffState.READY:
                self.handoff, self.kind = current, current.kind
                self.target_identity = await self._identity_of(current.to_agent)
                return

    async def _identity_of(self, agent: AgentId | None) -> str:
        members = await self.seat.room.roster.members()
        return next((each.identity for each in members if each.agent == agent), "")

    async def _at_boundary(self, handoff: Handoff) -> None:
        """Waits until nobody speaks and nothing is undecided, for a bounded time, as long as the target lives."""
        within = self.seat.plan.settings.turn_boundary.total_seconds()
        until = time.monotonic() + within
        aborted = asyncio.create_task(self._follow_to_abort(handoff), name="baton: watch the target")
        try:
            while time.monotonic() < until and not self.seat.session.at_boundary:
                if aborted.done():
                    break
                if self.request.lease.reason is not None:
                    raise self._failed("this agent lost the floor before")
                await asyncio.sleep(LOOK_EVERY.total_seconds())
            if aborted.done():
                aborted.result()
        finally:
            aborted.cancel()
            await asyncio.gather(aborted, return_exceptions=True)

    async def _follow_to_abort(self, handoff: Handoff) -> None:
        async for current in self.seat.room.handoffs.watch():
            if current.id != handoff.id or current.state is HandoffState.ABORTED:
                raise self._failed(current.reason or "the agent that was ready has left")

    async def _commit(self, handoff: Handoff) -> None:
        await self.seat.turns.flush()
        if self.seat.session.utterance.open:
            await self._note(UtteranceState.OPEN)
            await asyncio.sleep(HEAD_START.total_seconds())
        await self.seat.session.hush(new_track=self.kind == "dispatched")
        try:
            await self.seat.room.handoffs.commit(self.request.lease, handoff.id)
        except (HandoffError, LeaseError) as refusal:
            raise self._failed(str(refusal)) from refusal
        finally:
            if self.seat.lease is self.request.lease:
                self.seat.session.gate.open(self.request.lease)

    async def _withdraw(self, reason: str) -> None:
        if self.told_open:
            await self._note(UtteranceState.DONE)
        if self.handoff is not None:
            try:
                await asyncio.shield(self.seat.room.handoffs.abort(self.handoff.id, reason=reason))
            except CoordinationError as fault:
                logger.warning("an offer could not be withdrawn and ends with its deadline: %s", fault)

    # -- after the floor has moved ----------------------------------------------------------------

    @property
    def owns_utterance(self) -> bool:
        """Whether what the caller is saying, or said last, is this agent's: it began before the floor moved."""
        return self.told_open or self.seat.session.utterance.began_by(self.moved_at)

    async def finish_utterance(self, *, moved_at: float) -> None:
        """Transcribes an utterance that began before the floor moved (`time.time()`), and passes it on.

        Returns when this agent need not listen any more. An utterance that began later is the new agent's.
        """
        self.moved_at = moved_at
        session, carried = self.seat.session, None
        until = time.time() + self.seat.plan.settings.utterance_limit.total_seconds()
        while time.time() < until:
            carried = carried or session.take_carried()
            mine = session.utterance.began_by(moved_at)
            going_on = mine and session.utterance.open
            if not self.told_open and (going_on or carried):
                await self._note(UtteranceState.OPEN)
            if self.told_open and not going_on:
                await self._note(UtteranceState.DONE, *(carried or ()))
                carried = None
            if not mine and time.time() - moved_at > LATE.total_seconds():
                return
            await asyncio.sleep(LOOK_EVERY.total_seconds())
        if self.told_open:
            await self._note(UtteranceState.DONE, *(carried or session.take_carried() or ()))

    async def _note(self, state: UtteranceState, turn: str = "", text: str = "") -> None:
        if self.handoff is None:
            return
        self.told_open = state is UtteranceState.OPEN
        note = UtteranceNote(handoff=self.handoff.id, state=state, turn=turn, text=text)
        await tell(self.seat.ctx.room, self.target_identity, note)

    def _failed(self, reason: str) -> HandoffFailed:
        return HandoffFailed(self.role, reason)
