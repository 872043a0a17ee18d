"""The event feed: coordinators append what happened in calls, other services follow it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import select

from backend.auth import Tenant
from backend.erasure import admit_conversation
from backend.errors import Erased, responses
from backend.feed import NewEvent, append_events
from backend.models import Event
from backend.paging import Limit
from backend.state import Parts
from backend.values import Answer, Body, Fence, Id, Line, Moment, Name, Object, Word

router = APIRouter(prefix="/v1/events", tags=["events"])


class EventBody(Body):
    """What happened; never what was said."""

    id: Id
    """The source's, e.g. room and stream id: the same id again is the same event, and is not stored twice."""
    kind: Word
    """E.g. `grant`, `commit` (a handoff), `join`; `call.started`."""
    at: Moment
    room: Name | None = None
    conversation_id: Id | None = None
    agent: Name | None = None
    role: Name | None = None
    fence: Fence | None = None
    reason: Line | None = None
    data: Object = {}


class EventsBody(Body):
    """Some events, in order."""

    events: Annotated[list[EventBody], Field(min_length=1, max_length=500)]


class EventsAppended(Answer):
    """What became of them."""

    appended: int
    known: int
    """Were in the feed already."""
    erased: int
    """Belong to a conversation that was erased, and were dropped."""


class EventAnswer(Answer):
    """An event as it is stored."""

    sequence: int
    id: str
    kind: str
    at: Moment
    room: str | None
    conversation_id: str | None
    agent: str | None
    role: str | None
    fence: int | None
    reason: str | None
    data: Object
    saved_at: Moment


class Feed(Answer):
    """A stretch of the feed."""

    items: list[EventAnswer]
    cursor: str
    """Where the next one starts, also when there is nothing yet: ask again with it, a little later."""


@router.post("", operation_id="append_events", responses=responses())
async def post_events(parts: Parts, tenant: Tenant, body: EventsBody) -> EventsAppended:
    """Appends events, each once by its id; may be repeated as a whole."""
    async with parts.database.writing() as session:
        erased: set[str] = set()
        for conversation_id in {event.conversation_id for event in body.events} - {None}:
            try:
                await admit_conversation(session, tenant, conversation_id)
            except Erased:
                erased.add(str(conversation_id))
        wanted = [event for event in body.events if event.conversation_id not in erased]
        appended = await append_events(session, tenant, [NewEvent(**event.model_dump()) for event in wanted])
    parts.metrics.events.inc(appended)
    parts.appended.set()
    return EventsAppended(appended=appended, known=len(wanted) - appended, erased=len(body.events) - len(wanted))


@router.get("", operation_id="read_events", responses=responses())
async def read_events(
    parts: Parts,
    tenant: Tenant,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,15}$", description="`cursor` of the last answer; none: from the start.")
    ] = None,
    kind: Annotated[list[Word] | None, Query(max_length=50, description="Only these kinds.")] = None,
    room: Annotated[Name | None, Query(description="Only of this room.")] = None,
    limit: Limit = 50,
) -> Feed:
    """The feed behind a cursor, in order. Whoever keeps the cursor misses nothing and sees each event once."""
    after = int(cursor or 0)
    query = select(Event).where(Event.tenant == tenant, Event.sequence > after)
    if kind:
        query = query.where(Event.kind.in_(kind))
    if room is not None:
        query = query.where(Event.room == room)
    async with parts.database.reading() as session:
        rows = list(await session.scalars(query.order_by(Event.sequence).limit(limit)))
    last = rows[-1].sequence if rows else after
    return Feed(items=[EventAnswer.model_validate(row) for row in rows], cursor=str(last))
