"""Sessions: the record of a call, saved while it runs and once more at its end."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.auth import Tenant
from backend.conversing import own_conversation
from backend.database import insert_missing
from backend.erasure import admit_conversation, admit_user
from backend.errors import NotFound, StaleFence, responses
from backend.idempotency import MaybeOnce, Written
from backend.models import Session
from backend.models.base import now
from backend.paging import Cursor, Limit, Page, only, read_page
from backend.state import Parts
from backend.values import Answer, Body, Fence, Id, Line, Moment, Name, Number, Object, Seconds

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])
SessionId = Annotated[Id, Path(description="The application's id of the session; the room's sid is a good one.")]


class SessionBody(Body):
    """The record as a whole: what is left out is cleared."""

    started_at: Moment
    ended_at: Moment | None = None
    duration_seconds: Seconds | None = None
    """By default from start to end."""
    conversation_id: Id | None = None
    user_id: Id | None = None
    room: Name | None = None
    room_sid: Name | None = None
    participants: Number | None = None
    """How many there were, agents not counted."""
    messages: Number | None = None
    handoffs: Number = 0
    roles: Annotated[list[Name], Field(max_length=100)] = []
    """The roles that had the floor, in the order in which they first had it."""
    reason: Line | None = None
    """Why it ended, in a word."""
    details: Object = {}
    fence: Fence = 0
    """Of the holder that saves it: an older one cannot overwrite a newer one's record."""


class SessionAnswer(Answer):
    """A session as it is stored."""

    id: str
    started_at: Moment
    ended_at: Moment | None
    duration_seconds: float | None
    conversation_id: str | None
    user_id: str | None
    room: str | None
    room_sid: str | None
    participants: int | None
    messages: int | None
    handoffs: int
    roles: list[str]
    reason: str | None
    details: Object
    fence: int
    saved_at: Moment


@router.get("", operation_id="list_sessions", responses=responses())
async def list_sessions(
    parts: Parts,
    tenant: Tenant,
    user_id: Annotated[Id | None, Query()] = None,
    conversation_id: Annotated[Id | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[SessionAnswer]:
    """Sessions by their start, the oldest first."""
    query = only(
        select(Session).where(Session.tenant == tenant),
        (Session.user_id, user_id),
        (Session.conversation_id, conversation_id),
    )
    async with parts.database.reading() as session:
        return await read_page(
            session, SessionAnswer, query, [Session.started_at, Session.id], cursor=cursor, limit=limit
        )


@router.get("/{session_id}", operation_id="get_session", responses=responses(404))
async def get_session(parts: Parts, tenant: Tenant, session_id: SessionId) -> SessionAnswer:
    """One session."""
    async with parts.database.reading() as session:
        row = await session.get(Session, (tenant, session_id))
        if row is None:
            raise NotFound("session", session_id)
        return SessionAnswer.model_validate(row)


@router.put("/{session_id}", operation_id="save_session", response_model=SessionAnswer, responses=responses(409, 410))
async def save_session(once: MaybeOnce, tenant: Tenant, session_id: SessionId, body: SessionBody) -> Response:
    """Creates the record, or replaces it. The conversation that it names is created if need be, and ends with it."""

    async def write(session: AsyncSession) -> Written:
        await admit_user(session, tenant, body.user_id)
        await admit_conversation(session, tenant, body.conversation_id)
        row = await _own_session(session, tenant, session_id, body)
        if body.fence < row.fence:
            raise StaleFence(f"session {session_id!r}", body.fence, row.fence)
        for name, value in body.model_dump().items():
            setattr(row, name, value)
        if row.duration_seconds is None and row.ended_at is not None:
            row.duration_seconds = max(0.0, (row.ended_at - row.started_at).total_seconds())
        row.saved_at = now()
        if body.conversation_id is not None:
            talk = await own_conversation(session, tenant, body.conversation_id, user_id=body.user_id, room=body.room)
            talk.started_at = talk.started_at or body.started_at
            talk.ended_at = body.ended_at or talk.ended_at
        answer = SessionAnswer.model_validate(row)
        return Written(answer=answer, user=body.user_id, conversation=body.conversation_id)

    return await once.perform(write, status=200)


async def _own_session(session: AsyncSession, tenant: str, session_id: str, body: SessionBody) -> Session:
    """The row, created if need be, and locked."""
    await insert_missing(
        session,
        Session,
        tenant=tenant,
        id=session_id,
        started_at=body.started_at,
        handoffs=0,
        roles=[],
        details={},
        fence=0,
        saved_at=now(),
    )
    return await session.get_one(Session, (tenant, session_id), with_for_update=True)
