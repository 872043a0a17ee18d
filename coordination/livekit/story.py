"""How an agent that steps in finds the call: from the turn log, or from room and backend where Redis has lost it.

Redis that comes back empty is told the story by the holder of the floor, or by whoever gets the floor and read along.
Where nobody is left who did, the room's session record says that the call had begun, and the backend what was said.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coordination.errors import CoordinationError
from coordination.livekit.entry import Entry, EntryKind
from coordination.livekit.resume import ResumeAction, plan_resume
from coordination.room.clock import moment
from coordination.room.turns import Speaker, Turn

if TYPE_CHECKING:
    from coordination.livekit.seat import Seat

logger = logging.getLogger(__name__)


async def find_out(seat: Seat, entry: Entry) -> None:
    """How the caller experiences an agent that steps in: as the first voice, as the same one, or as another.

    Never raises on purpose: an agent that finds nothing out goes on as one who took over.
    """
    try:
        turns = await _turns(seat)
    except CoordinationError as fault:
        logger.warning("the turn log could not be read: %s", fault)
        return
    if turns is None:
        return
    spoken = [turn for turn in turns if turn.speaker is Speaker.AGENT]
    if not spoken:
        entry.kind, entry.continuation = EntryKind.FRESH, None
    elif spoken[-1].id in seat.turns.mine:
        entry.kind = EntryKind.RESUMED
    elif entry.continuation is None or not entry.continuation.given_up:
        granted = moment(seat.lease.fence) if seat.lease is not None else datetime.now(UTC)
        resume = plan_resume(turns, now=granted)
        # Another role speaks up even where nothing was open: the caller is to know whom they have on the line.
        if resume is not None and (resume.action is not ResumeAction.WAIT or spoken[-1].role == seat.role):
            entry.resume = resume


async def _turns(seat: Seat) -> Sequence[Turn] | None:
    """The turns of the call; None where it had begun, and nobody knows any more what was said."""
    turns = await seat.room.turns.read()
    if turns or not await _lost(seat):
        return turns
    await seat.room.restore()
    turns = await seat.room.turns.read()
    if turns:
        return turns
    logger.warning("Redis has lost a call that had begun, and no agent is left that held it: asking the backend")
    seat.history.before = await seat.saving.earlier() if seat.saving is not None else ()
    # Of what was said last it is not known how much was heard: nothing is said again.
    return None


async def _lost(seat: Seat) -> bool:
    """Whether Redis does not know the grant that the room's session record was written under, in this very call.

    A caller who came after that grant may well begin another call in the same room, which Redis is right to know
    nothing of.
    """
    fence, caller = seat.keeper.fence, seat.ctx.room.remote_participants.get(seat.call.caller or "")
    if fence is None or caller is None or caller.joined_at is None or caller.joined_at > moment(fence):
        return False
    return all(event.fence != fence for event in await seat.room.events.read())
