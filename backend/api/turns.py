"""Turns: what an agent saves at once, as a rule what the caller said and what was answered."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.api.conversations import ConversationId
from backend.api.messages import Appended, UtteranceBody
from backend.auth import Tenant
from backend.conversing import Speaker, append_turn, own_conversation
from backend.errors import NotFound, responses
from backend.idempotency import ExactlyOnce, Written
from backend.models import Conversation, Turn
from backend.paging import Cursor, Limit, Page, read_page
from backend.state import Parts
from backend.values import Answer, Body, Fence, Flag, Id, Moment, Name

router = APIRouter(prefix="/v1/conversations/{conversation_id}/turns", tags=["turns"])


class TurnBody(Body):
    """A turn to append, with its messages in the order in which they were said."""

    agent: Name | None = None
    """Id of the agent that held the floor."""
    role: Name | None = None
    """Its role."""
    fence: Fence | None = None
    """The fence that it held the floor with: the place of the turn among those of other agents. None: behind all so
    far."""
    messages: Annotated[list[UtteranceBody], Field(min_length=1, max_length=50)]
    started_at: Moment | None = None
    """By default when the first message was said."""
    ended_at: Moment | None = None
    interrupted: Flag = False
    user_id: Id | None = None
    room: Name | None = None


class TurnAnswer(Answer):
    """A turn as it is stored; its messages carry its sequence. Order: by fence, then by sequence."""

    conversation_id: str
    sequence: int
    fence: int
    agent: str | None
    role: str | None
    started_at: Moment
    ended_at: Moment | None
    interrupted: bool


@router.post(
    "", operation_id="save_conversation_turn", status_code=201, response_model=Appended, responses=responses(409, 410)
)
async def save_conversation_turn(
    once: ExactlyOnce, tenant: Tenant, conversation_id: ConversationId, body: TurnBody
) -> Response:
    """Appends one turn with all of its messages, exactly once. The conversation is created if need be."""

    async def write(session: AsyncSession) -> Written:
        row = await own_conversation(session, tenant, conversation_id, user_id=body.user_id, room=body.room)
        turn, messages = await append_turn(
            session,
            row,
            Speaker(agent=body.agent, role=body.role, fence=body.fence),
            [message.utterance() for message in body.messages],
            started_at=body.started_at,
            ended_at=body.ended_at,
            interrupted=body.interrupted,
        )
        answer = Appended(
            conversation_id=conversation_id,
            fence=turn.fence,
            turn=turn.sequence,
            sequences=[message.sequence for message in messages],
        )
        return Written(answer=answer, conversation=conversation_id)

    return await once.perform(write)


@router.get("", operation_id="list_turns", responses=responses(404))
async def list_turns(
    parts: Parts, tenant: Tenant, conversation_id: ConversationId, cursor: Cursor = None, limit: Limit = 50
) -> Page[TurnAnswer]:
    """The turns of a conversation, as they were taken."""
    async with parts.database.reading() as session:
        if await session.get(Conversation, (tenant, conversation_id)) is None:
            raise NotFound("conversation", conversation_id)
        query = select(Turn).where(Turn.tenant == tenant, Turn.conversation_id == conversation_id)
        order = [Turn.fence, Turn.sequence]
        return await read_page(session, TurnAnswer, query, order, cursor=cursor, limit=limit)
