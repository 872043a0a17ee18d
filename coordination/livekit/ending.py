"""How a worker ends a call that it does not take, and how it leaves one that it was in."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from typing import Final

from livekit import api

from coordination.errors import DispatchFailed
from coordination.limits.reservation import CallLease
from coordination.livekit.asking import LiveKitUnavailable, asking, is_absent
from coordination.livekit.calls import LiveKitCalls

logger = logging.getLogger(__name__)

REFUSED_TOPIC: Final = "baton.refused"
"""Topic of the data message that a caller gets whose call is refused, just before the room is closed."""
COMES_WITHIN: Final = timedelta(seconds=2)
"""A room is offered when its first participant joins; this long at most until it is in the room."""
LOOK_EVERY: Final = 0.05


async def refuse_call(client: api.LiveKitAPI, room: str) -> None:
    """Tells the caller's side that there is no free line, and closes the room."""
    try:
        loop = asyncio.get_running_loop()
        until = loop.time() + COMES_WITHIN.total_seconds()
        while not await _somebody_hears(client, room) and loop.time() < until:
            await asyncio.sleep(LOOK_EVERY)
        async with asking(f"LiveKit did not pass on a refusal to the room {room!r}", error=LiveKitUnavailable):
            text = json.dumps({"v": 1, "refused": "no_free_line"}).encode()
            await client.room.send_data(api.SendDataRequest(room=room, data=text, topic=REFUSED_TOPIC))
    except LiveKitUnavailable as fault:
        if is_absent(fault.__cause__):
            return
        logger.warning("%s", fault)
    await close_room(client, room)


async def close_room(client: api.LiveKitAPI, room: str) -> None:
    """Ends a call that was not taken. A room that is gone is no error, one that stays is logged."""
    try:
        async with asking(f"LiveKit did not close the room {room!r} of a refused call", error=LiveKitUnavailable):
            await client.room.delete_room(api.DeleteRoomRequest(room=room))
    except LiveKitUnavailable as fault:
        if not is_absent(fault.__cause__):
            logger.warning("%s", fault)


async def leave_line(client: api.LiveKitAPI, room: str, lease: CallLease) -> None:
    """Gives up a worker's part in a call's slot. Without a caller the call is over, and the slot is free at once.

    With one, the slot is left to the other agents of the call, and to a replacement that is on its way: it is free
    when none of them keeps it for three seconds.
    """
    try:
        over = not await LiveKitCalls(client).has_caller(room)
    except DispatchFailed as fault:
        over = False
        logger.warning("the slot of a call runs out by itself: %s", fault)
    await (lease.end() if over else lease.close())


async def _somebody_hears(client: api.LiveKitAPI, room: str) -> bool:
    """Whether a participant is connected. Raises `LiveKitUnavailable`, also for a room that is gone."""
    async with asking(f"LiveKit did not list who is in the room {room!r}", error=LiveKitUnavailable):
        listed = await client.room.list_participants(api.ListParticipantsRequest(room=room))
    return any(each.state == api.ParticipantInfo.State.ACTIVE for each in listed.participants)
