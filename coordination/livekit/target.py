"""The agent that a handoff goes to: it takes the offer, prepares with its gate closed, says so, and opens.

Any standby takes an offer for its role, whether it was in the room before or was dispatched for it: one that comes too
late for its own handoff is simply there for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from coordination.errors import CoordinationError, HandoffError
from coordination.handoff.protocol import Handoff, HandoffKind, HandoffState
from coordination.leases.lease import Lease
from coordination.livekit.entry import Continuation, Entry, EntryKind, opening_of
from coordination.livekit.identity import agent_identity
from coordination.livekit.room_events import on_room
from coordination.livekit.utterance import CarriedUtterance, UtteranceNote, on_note

if TYPE_CHECKING:
    from livekit import rtc

    from coordination.livekit.seat import Seat

logger = logging.getLogger(__name__)


class Target:
    """Waits for offers while its seat stands by."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._task: asyncio.Task[None] | None = None
        self._entry: Entry | None = None
        self._from_identity = ""
        self.ready = False
        """This agent is prepared and was promised the floor."""
        self.carried: CarriedUtterance | None = None
        self._ends = [
            on_note(seat.ctx.room, self._on_note),
            on_room(seat.ctx.room, "participant_disconnected", self._on_left),
        ]

    @property
    def busy(self) -> bool:
        """Whether a handoff to this agent is under way."""
        return self.carried is not None and not self._seat.holds

    def begin(self) -> None:
        if self._task is None:
            self._entry = self.carried = None
            self._task = self._seat.keep(self._watch, "take handoffs")

    def end(self) -> None:
        """Takes no offers any more; the one that has just led to the floor is complete."""
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        self.ready = False

    def close(self) -> None:
        while self._ends:
            self._ends.pop()()

    def entry_after_loss(self) -> Entry | None:
        """How to come on when the old holder died after this agent was ready: with what was prepared."""
        return self._entry if self.ready else None

    async def _watch(self) -> None:
        async for handoff in self._seat.room.handoffs.watch():
            if handoff.state is HandoffState.OFFERED and handoff.to_role == self._seat.role:
                lease = await self._take(handoff)
                if lease is not None and self._entry is not None:
                    await self._seat.hold(lease, self._entry)
                    return

    async def _take(self, offer: Handoff) -> Lease | None:
        """Claims, prepares and waits for the floor; None if it comes to nothing."""
        try:
            kind = HandoffKind.DISPATCHED if self._seat.plan.handoff == offer.id else HandoffKind.STANDBY
            handoff = await self._seat.room.handoffs.claim(offer.id, agent=self._seat.agent, kind=kind)
        except HandoffError as refusal:
            logger.debug("another agent took the offer, or it is gone: %s", refusal)
            return None
        self.carried = CarriedUtterance(handoff.id)
        granted = asyncio.create_task(self._get_ready(handoff), name="baton: get ready for the floor")
        aborted = asyncio.create_task(self._aborted(handoff), name="baton: follow the handoff")
        lease: Lease | None = None
        try:
            await asyncio.wait([granted, aborted], return_when=asyncio.FIRST_COMPLETED)
            if granted.done():
                lease = await self._outcome(granted, handoff)
            return lease
        finally:
            if lease is None and self._seat.lease is None:
                self._drop()
            for task in (granted, aborted):
                task.cancel()
            await asyncio.gather(granted, aborted, return_exceptions=True)

    async def _outcome(self, granted: asyncio.Task[Lease], handoff: Handoff) -> Lease | None:
        try:
            return granted.result()
        except CoordinationError as refusal:
            reason = str(refusal)
        except Exception:
            logger.exception("the agent could not prepare for a handoff")
            reason = "the agent failed while it prepared"
        await self._seat.room.handoffs.abort(handoff.id, reason=reason)
        return None

    async def _get_ready(self, handoff: Handoff) -> Lease:
        seat = self._seat
        self._entry = await self._prepare(handoff)
        await seat.session.get_set(self._entry)
        request_id = await seat.room.handoffs.ready(handoff.id, agent=seat.agent)
        self.ready = True
        lease = await seat.room.floor.expect_grant(seat.agent, role=seat.role, request_id=request_id, timeout=None)
        self._entry.at = time.monotonic()
        return lease

    async def _prepare(self, handoff: Handoff) -> Entry:
        session, agent = self._seat.session, self._seat.session.stage.front
        self._from_identity = agent_identity(handoff.from_agent)
        context = handoff.context
        kind = EntryKind.RELOCATION if handoff.from_role == self._seat.role else EntryKind.HANDOFF
        story = Continuation(
            kind=kind,
            from_role=handoff.from_role,
            reason=context.reason,
            summary=context.summary,
            facts=context.facts,
        )
        opening = None if kind is EntryKind.RELOCATION else await opening_of(agent, context.opening, story)
        await self._seat.history.catch_up(agent, session.history, None)
        return Entry(kind=kind, continuation=story, opening=opening)

    async def _aborted(self, handoff: Handoff) -> None:
        async for current in self._seat.room.handoffs.watch():
            if current.id != handoff.id or current.state is HandoffState.ABORTED:
                return

    def _drop(self) -> None:
        self._entry = self.carried = None
        self.ready = False
        self._seat.session.go_silent()

    def _on_note(self, note: UtteranceNote) -> None:
        if self.carried is not None:
            pending = self.carried.pending
            self.carried.note(note)
            if self.carried.pending and not pending:
                self._seat.session.yield_to_caller()

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        if self.carried is not None and participant.identity == self._from_identity:
            self.carried.abandoned()
