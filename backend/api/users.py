"""Users, their preferences, what an agent wants to know before it speaks, and deleting all of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.api.conversations import ConversationAnswer
from backend.api.invoices import InvoiceAnswer
from backend.api.messages import MessageAnswer, newest_messages
from backend.api.tickets import TicketAnswer
from backend.auth import Tenant
from backend.database import insert_missing
from backend.erasure import erase_user, welcome_user
from backend.errors import NotFound, responses
from backend.idempotency import MaybeOnce, Written
from backend.models import Conversation, Invoice, Ticket, User
from backend.models.base import now
from backend.paging import Cursor, Limit, Page, read_page
from backend.state import Parts
from backend.values import Answer, Body, Id, Line, Moment, Object, merge_patch

router = APIRouter(prefix="/v1/users", tags=["users"])
UserId = Annotated[Id, Path(description="The application's id of the user.")]
_OPEN = 20


class UserBody(Body):
    """A user as a whole: what is left out is cleared."""

    name: Line | None = None
    language: Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z0-9-]+$")] | None = None
    """A language tag (BCP 47), e.g. `de-AT`."""
    preferences: Object = {}


class UserAnswer(Answer):
    """A user."""

    id: str
    name: str | None
    language: str | None
    preferences: Object
    created_at: Moment
    updated_at: Moment


class UserContext(Answer):
    """What an agent wants to know about a user before it speaks."""

    user: UserAnswer
    conversations: int
    """How many there were, the current one included once it is saved."""
    last_conversation: ConversationAnswer | None
    last_messages: list[MessageAnswer]
    """The last ten of that conversation, the newest last."""
    open_tickets: list[TicketAnswer]
    invoices: list[InvoiceAnswer]
    """The newest first."""


class Erasures(Answer):
    """How much was deleted, by kind."""

    deleted: dict[str, int]


@router.get("", operation_id="list_users", responses=responses())
async def list_users(parts: Parts, tenant: Tenant, cursor: Cursor = None, limit: Limit = 50) -> Page[UserAnswer]:
    """The users of the tenant, by id."""
    async with parts.database.reading() as session:
        return await read_page(
            session, UserAnswer, select(User).where(User.tenant == tenant), [User.id], cursor=cursor, limit=limit
        )


@router.get("/{user_id}", operation_id="get_user", responses=responses(404))
async def get_user(parts: Parts, tenant: Tenant, user_id: UserId) -> UserAnswer:
    """One user."""
    async with parts.database.reading() as session:
        return UserAnswer.model_validate(await _user(session, tenant, user_id))


@router.put("/{user_id}", operation_id="put_user", response_model=UserAnswer, responses=responses(409))
async def put_user(once: MaybeOnce, tenant: Tenant, user_id: UserId, body: UserBody) -> Response:
    """Creates the user, or replaces what is known. One who was erased may be created again."""

    async def write(session: AsyncSession) -> Written:
        await welcome_user(session, tenant, user_id)
        await insert_missing(
            session, User, tenant=tenant, id=user_id, preferences={}, created_at=now(), updated_at=now()
        )
        user = await _user(session, tenant, user_id, lock=True)
        user.name, user.language, user.preferences, user.updated_at = body.name, body.language, body.preferences, now()
        return Written(answer=UserAnswer.model_validate(user), user=user_id)

    return await once.perform(write, status=200)


@router.patch(
    "/{user_id}/preferences", operation_id="patch_preferences", response_model=UserAnswer, responses=responses(404, 409)
)
async def patch_preferences(once: MaybeOnce, tenant: Tenant, user_id: UserId, body: Object) -> Response:
    """Changes some preferences: a JSON merge patch (RFC 7396), null removes one."""

    async def write(session: AsyncSession) -> Written:
        user = await _user(session, tenant, user_id, lock=True)
        merged = UserBody(preferences=merge_patch(user.preferences, body))
        user.preferences, user.updated_at = merged.preferences, now()
        return Written(answer=UserAnswer.model_validate(user), user=user_id)

    return await once.perform(write, status=200)


@router.get("/{user_id}/context", operation_id="get_user_context", responses=responses(404))
async def get_user_context(parts: Parts, tenant: Tenant, user_id: UserId) -> UserContext:
    """The user with preferences, the last conversation and its last messages, open tickets and invoices."""
    async with parts.database.reading() as session:
        user = await _user(session, tenant, user_id)
        theirs = (Conversation.tenant == tenant, Conversation.user_id == user_id)
        count = await session.scalar(select(func.count()).select_from(Conversation).where(*theirs))
        last = await session.scalar(
            select(Conversation).where(*theirs).order_by(Conversation.created_at.desc(), Conversation.id).limit(1)
        )
        messages = await newest_messages(session, tenant, last.id, limit=10) if last is not None else []
        tickets = await session.scalars(
            select(Ticket)
            .where(Ticket.tenant == tenant, Ticket.user_id == user_id, Ticket.status == "open")
            .order_by(Ticket.number.desc())
            .limit(_OPEN)
        )
        invoices = await session.scalars(
            select(Invoice)
            .where(Invoice.tenant == tenant, Invoice.user_id == user_id)
            .order_by(Invoice.issued_on.desc(), Invoice.id)
            .limit(_OPEN)
        )
        return UserContext(
            user=UserAnswer.model_validate(user),
            conversations=count or 0,
            last_conversation=ConversationAnswer.model_validate(last) if last is not None else None,
            last_messages=messages,
            open_tickets=[TicketAnswer.model_validate(row) for row in tickets],
            invoices=[InvoiceAnswer.model_validate(row) for row in invoices],
        )


@router.delete(
    "/{user_id}", operation_id="erase_user", response_model=Erasures, responses=responses(409), tags=["erasure"]
)
async def delete_user(once: MaybeOnce, tenant: Tenant, user_id: UserId) -> Response:
    """Erases the user and all of theirs: conversations, sessions, files, invoices, tickets. What is written about
    them later, from an outbox for instance, is refused with status 410. The event `user.erased` tells others."""

    async def write(session: AsyncSession) -> Written:
        return Written(answer=Erasures(deleted=await erase_user(session, tenant, user_id)))

    return await once.perform(write, status=200)


async def _user(session: AsyncSession, tenant: str, user_id: str, *, lock: bool = False) -> User:
    user = await session.get(User, (tenant, user_id), with_for_update=lock or None)
    if user is None:
        raise NotFound("user", user_id)
    return user
