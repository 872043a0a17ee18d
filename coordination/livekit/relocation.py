"""Moving a live call to another worker, because this one drains or an operator wants it so.

The same two-phase handoff as any other, to the agent's own role: another agent of the role is brought in, gets ready
with its gate closed, and has the floor at a turn boundary; the caller hears no opening and no second greeting. If
there is nowhere to go, the agent stays and tries again: a call is never dropped for a drain.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from coordination.errors import CoordinationError, HandoffFailed
from coordination.handoff.context import HandoffContext
from coordination.livekit.handoff import Departure, HandoffRequest
from coordination.metrics import METRICS
from coordination.room.members import MemberState

if TYPE_CHECKING:
    from coordination.livekit.seat import Seat

logger = logging.getLogger(__name__)

AGAIN_AFTER: Final = 2.0
"""Seconds between attempts: a worker that starts now is ready for calls about that much later."""
LOOK_EVERY: Final = 0.05
REASON: Final = "relocation"


class Relocation:
    """Waits for the wish that its agent leaves, and then brings that about."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    async def watch(self) -> None:
        """Returns when the agent has left its call to another, or the call is over."""
        membership = self._seat.membership
        await membership.asked_to_leave.wait()
        logger.info("this agent is asked to leave its call")
        while not await self._gone():
            await asyncio.sleep(LOOK_EVERY)
        self._seat.leave("its call goes on elsewhere")

    async def _gone(self) -> bool:
        """Whether nothing of the call hangs on this agent any more."""
        seat = self._seat
        if seat.departure is not None or seat.leaving is not None or seat.target.busy:
            return False
        if seat.lease is None:
            return True
        if not seat.call.caller_present:
            return False
        try:
            await self._move()
        except HandoffFailed as failure:
            METRICS.handoff(REASON, "failed")
            logger.warning("the call stays here for now: %s", failure)
            await asyncio.sleep(AGAIN_AFTER)
            return False
        METRICS.handoff(REASON, "committed")
        return False

    async def _move(self) -> None:
        seat, lease = self._seat, self._seat.lease
        if lease is None:
            return
        # The own role is free for another agent from here on.
        await self._tell(MemberState.LEAVING)
        request = HandoffRequest(lease=lease, role=seat.role, context=HandoffContext(reason=REASON))
        try:
            await Departure(seat, request, deadline=seat.plan.settings.handoff_deadline).run()
        except HandoffFailed:
            if seat.holds:
                await self._tell(MemberState.HOLDER)
            raise

    async def _tell(self, state: MemberState) -> None:
        try:
            await self._seat.membership.set_state(state)
        except CoordinationError as fault:
            raise HandoffFailed(self._seat.role, str(fault)) from fault
