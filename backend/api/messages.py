"""Messages: what was said, one utterance each."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.api.conversations import ConversationId
from backend.auth import Tenant
from backend.conversing import Speaker, Utterance, append_messages, own_conversation
from backend.errors import InvalidRequest, NotFound, responses
from backend.idempotency import ExactlyOnce, Written
from backend.models import Conversation, Message
from backend.paging import Cursor, Limit, Page, read_page
from backend.state import Parts
from backend.values import Answer, Body, Fence, Flag, Id, Moment, Name, Seconds, Text

router = APIRouter(prefix="/v1", tags=["messages"])


class Who(StrEnum):
    """Who said it. `person`: a colleague who took the call; `system`: nobody, e.g. a notice."""

    CALLER = "caller"
    AGENT = "agent"
    PERSON = "person"
    SYSTEM = "system"


class UtteranceBody(Body):
    """One utterance."""

    speaker: Who
    text: Text
    at: Moment | None = None
    """When it was said; by default when it is saved."""
    agent: Name | None = None
    """The agent that said it, or that heard the caller say it."""
    role: Name | None = None
    played_seconds: Seconds | None = None
    """How much of it was heard, if it is known."""
    interrupted: Flag = False

    def utterance(self) -> Utterance:
        return Utterance(
            speaker=self.speaker.value,
            text=self.text,
            at=self.at,
            agent=self.agent,
            role=self.role,
            played_seconds=self.played_seconds,
            interrupted=self.interrupted,
        )


class MessageBody(UtteranceBody):
    """A message to append. The conversation is created if need be."""

    fence: Fence | None = None
    """The fence under which it was said: its place among those of other agents. None: behind all so far."""
    user_id: Id | None = None
    room: Name | None = None


class MessageAnswer(Answer):
    """A message as it is stored. Order: by fence, then by sequence."""

    conversation_id: str
    sequence: int
    fence: int
    turn: int | None
    """Sequence of the turn that it was saved with."""
    speaker: Who
    agent: str | None
    role: str | None
    text: str
    at: Moment
    played_seconds: float | None
    interrupted: bool


class Appended(Answer):
    """Where something stands in its conversation. Its text is not repeated."""

    conversation_id: str
    fence: int
    turn: int | None
    sequences: list[int]
    """Of the messages, in the order in which they were sent."""


class Recent(Answer):
    """The newest messages of a conversation, the newest last."""

    conversation_id: str | None
    """None if the room has had no conversation yet."""
    messages: list[MessageAnswer]


@router.post(
    "/conversations/{conversation_id}/messages",
    operation_id="save_message",
    status_code=201,
    response_model=Appended,
    responses=responses(409, 410),
)
async def save_message(
    once: ExactlyOnce, tenant: Tenant, conversation_id: ConversationId, body: MessageBody
) -> Response:
    """Appends one message, exactly once."""

    async def write(session: AsyncSession) -> Written:
        row = await own_conversation(session, tenant, conversation_id, user_id=body.user_id, room=body.room)
        by = Speaker(agent=body.agent, role=body.role, fence=body.fence)
        (message,) = await append_messages(session, row, by, [body.utterance()])
        answer = Appended(conversation_id=conversation_id, fence=message.fence, turn=None, sequences=[message.sequence])
        return Written(answer=answer, conversation=conversation_id)

    return await once.perform(write)


@router.get("/conversations/{conversation_id}/messages", operation_id="list_messages", responses=responses(404))
async def list_messages(
    parts: Parts, tenant: Tenant, conversation_id: ConversationId, cursor: Cursor = None, limit: Limit = 50
) -> Page[MessageAnswer]:
    """The messages of a conversation, as they were said."""
    async with parts.database.reading() as session:
        if await session.get(Conversation, (tenant, conversation_id)) is None:
            raise NotFound("conversation", conversation_id)
        query = select(Message).where(Message.tenant == tenant, Message.conversation_id == conversation_id)
        order = [Message.fence, Message.sequence]
        return await read_page(session, MessageAnswer, query, order, cursor=cursor, limit=limit)


@router.get("/messages/recent", operation_id="get_recent_messages", responses=responses())
async def get_recent_messages(
    parts: Parts,
    tenant: Tenant,
    conversation_id: Annotated[Id | None, Query(description="Of this conversation.")] = None,
    room: Annotated[
        Name | None, Query(description="Of the newest conversation in the room of this name; one of the two.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="At most so many.")] = 10,
) -> Recent:
    """The newest messages, the newest last. A conversation that nobody has saved yet has none; that is no error."""
    if (conversation_id is None) == (room is None):
        raise InvalidRequest("Ask for the messages of a conversation_id or of a room, one of the two.")
    async with parts.database.reading() as session:
        if conversation_id is None:
            conversation_id = await session.scalar(
                select(Conversation.id)
                .where(Conversation.tenant == tenant, Conversation.room == room)
                .order_by(Conversation.created_at.desc(), Conversation.id)
                .limit(1)
            )
        if conversation_id is None:
            return Recent(conversation_id=None, messages=[])
        messages = await newest_messages(session, tenant, conversation_id, limit=limit)
    return Recent(conversation_id=conversation_id, messages=messages)


async def newest_messages(
    session: AsyncSession, tenant: str, conversation_id: str, *, limit: int
) -> list[MessageAnswer]:
    """The last `limit` messages of a conversation, the newest last."""
    rows = await session.scalars(
        select(Message)
        .where(Message.tenant == tenant, Message.conversation_id == conversation_id)
        .order_by(Message.fence.desc(), Message.sequence.desc())
        .limit(limit)
    )
    return [MessageAnswer.model_validate(row) for row in reversed(list(rows))]
