"""The record of a call and the events of it that others are told, whoever saves it: pure functions.

`record_of` builds it; `summarise` takes what it says of a call that several agents shared from the room's own history.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from coordination.persistence.values import CallEvent, SavedCall, SessionSummary

if TYPE_CHECKING:  # a process without Redis makes records as well
    from coordination.room.events import Event
    from coordination.room.turns import Turn

CALLER: Final = "caller"
"""Kind of the event that notes a caller, under `reason` in a form that tells callers apart and names nobody."""


STARTED: Final = "call.started"
HANDED_OFF: Final = "call.handed_off"
ENDED: Final = "call.ended"


def event_of(
    call: SavedCall,
    kind: str,
    at: datetime,
    *,
    name: str = "",
    agent: str = "",
    role: str = "",
    fence: int = 0,
    reason: str = "",
) -> CallEvent:
    """An event of the call, the same whoever tells it. `name` tells events of one kind apart."""
    return CallEvent(
        id=f"{call.session}.{name or kind}",
        kind=kind,
        at=at,
        room=call.room,
        conversation_id=call.conversation,
        agent=agent or None,
        role=role or None,
        fence=fence or None,
        reason=reason[:256] or None,
    )


def told_of(call: SavedCall, events: Sequence[Event]) -> Sequence[CallEvent]:
    """What a room's history says to other services: that the call has started, and each handoff to another role."""
    grants = [event for event in events if event.kind == "grant"]
    before = {this.fence: last.role for last, this in pairwise(grants)}
    moved = [event for event in events if event.kind == "commit" and before.get(event.fence) not in (None, event.role)]
    told = [_told(call, STARTED, each) for each in grants[:1]]
    return told + [_told(call, HANDED_OFF, each, name=each.id) for each in moved]


def _told(call: SavedCall, kind: str, event: Event, *, name: str = "") -> CallEvent:
    return event_of(call, kind, event.at, name=name, agent=event.agent, role=event.role, fence=event.fence)


def record_of(
    call: SavedCall,
    *,
    started: datetime,
    ended: datetime,
    participants: int,
    messages: int | None,
    roles: Sequence[str],
    reason: str,
    handoffs: int = 0,
    fence: int = 0,
) -> SessionSummary:
    """The record of a call that has ended. `messages` is None where they are not known; nobody at all is not known."""
    return SessionSummary(
        id=call.session,
        started_at=started,
        ended_at=ended,
        duration_seconds=max(0.0, (ended - started).total_seconds()),
        conversation_id=call.conversation,
        user_id=call.user,
        room=call.room,
        room_sid=call.session,
        participants=participants or None,
        messages=messages,
        handoffs=handoffs,
        roles=tuple(dict.fromkeys(role for role in roles if role)),
        reason=reason[:256] or None,
        fence=fence,
    )


def summarise(
    call: SavedCall, turns: Sequence[Turn], events: Sequence[Event], *, reason: str, ended: datetime | None
) -> SessionSummary:
    """The record. `ended` is None where nobody saw the end: then it ended with what is known to have happened last.

    A history that was cut short, because the call was very long, gives a count of messages that is not known.
    """
    grants = [(event.fence, event.role) for event in events if event.kind == "grant"]
    moved = {event.fence for event in events if event.kind == "commit"}
    handoffs = sum(fence in moved and role != before for (_, before), (fence, role) in pairwise(grants))
    moments = [event.at for event in events] + [turn.at for turn in turns]
    started = min(moments, default=ended or datetime.now().astimezone())
    if ended is None:
        ended = max((_end(turn) for turn in turns), default=max(moments, default=started))
    return record_of(
        call,
        started=started,
        ended=ended,
        participants=len({event.reason for event in events if event.kind == CALLER}),
        messages=len(turns) if not turns or turns[0].seq == 1 else None,
        roles=[role for _, role in grants],
        reason=reason,
        handoffs=handoffs,
        fence=max((fence for fence, _ in grants), default=0),
    )


def _end(turn: Turn) -> datetime:
    return turn.at + timedelta(seconds=turn.played or 0.0)
