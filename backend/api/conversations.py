"""Conversations: who talked with whom, in which room, from when to when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.auth import Tenant
from backend.conversing import own_conversation
from backend.erasure import erase_conversation
from backend.errors import NotFound, responses
from backend.idempotency import MaybeOnce, Written
from backend.models import Conversation
from backend.paging import Cursor, Limit, Page, only, read_page
from backend.state import Parts
from backend.values import Answer, Body, Id, Moment, Name

router = APIRouter(prefix="/v1/conversations", tags=["conversations"])
ConversationId = Annotated[Id, Path(description="The application's id of the conversation.")]


class ConversationBody(Body):
    """What is given is set; what is left out stays as it is."""

    user_id: Id | None = None
    room: Name | None = None
    """Name of the LiveKit room."""
    started_at: Moment | None = None
    ended_at: Moment | None = None


class ConversationAnswer(Answer):
    """A conversation."""

    id: str
    user_id: str | None
    room: str | None
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    messages: int
    turns: int
    fence: int


class ConversationErasure(Answer):
    """How much was deleted, by kind."""

    deleted: dict[str, int]


@router.get("", operation_id="list_conversations", responses=responses())
async def list_conversations(
    parts: Parts,
    tenant: Tenant,
    user_id: Annotated[Id | None, Query()] = None,
    room: Annotated[Name | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ConversationAnswer]:
    """Conversations, the oldest first; of one user, or of one room."""
    query = only(
        select(Conversation).where(Conversation.tenant == tenant),
        (Conversation.user_id, user_id),
        (Conversation.room, room),
    )
    async with parts.database.reading() as session:
        order = [Conversation.created_at, Conversation.id]
        return await read_page(session, ConversationAnswer, query, order, cursor=cursor, limit=limit)


@router.get("/{conversation_id}", operation_id="get_conversation", responses=responses(404))
async def get_conversation(parts: Parts, tenant: Tenant, conversation_id: ConversationId) -> ConversationAnswer:
    """One conversation."""
    async with parts.database.reading() as session:
        row = await session.get(Conversation, (tenant, conversation_id))
        if row is None:
            raise NotFound("conversation", conversation_id)
        return ConversationAnswer.model_validate(row)


@router.put(
    "/{conversation_id}",
    operation_id="put_conversation",
    response_model=ConversationAnswer,
    responses=responses(409, 410),
)
async def put_conversation(
    once: MaybeOnce, tenant: Tenant, conversation_id: ConversationId, body: ConversationBody
) -> Response:
    """Creates the conversation, or changes what is given. A conversation does not change its user."""

    async def write(session: AsyncSession) -> Written:
        row = await own_conversation(session, tenant, conversation_id, user_id=body.user_id, room=body.room)
        row.started_at = body.started_at or row.started_at
        row.ended_at = body.ended_at or row.ended_at
        return Written(answer=ConversationAnswer.model_validate(row), conversation=conversation_id)

    return await once.perform(write, status=200)


@router.delete(
    "/{conversation_id}",
    operation_id="erase_conversation",
    response_model=ConversationErasure,
    responses=responses(409),
    tags=["erasure"],
)
async def delete_conversation(once: MaybeOnce, tenant: Tenant, conversation_id: ConversationId) -> Response:
    """Erases the conversation with its turns, messages, sessions, files, tickets and events. What is written to it
    later is refused with status 410. The event `conversation.erased` tells other services."""

    async def write(session: AsyncSession) -> Written:
        return Written(answer=ConversationErasure(deleted=await erase_conversation(session, tenant, conversation_id)))

    return await once.perform(write, status=200)
