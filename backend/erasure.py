"""Deleting what is known about a user, so that it stays deleted.

Invariant: when an erasure has been committed, nothing of the user or of their conversations is in the database, and
what an outbox still holds of them is refused (status 410). The event `user.erased` names the conversations and rooms:
whoever keeps something elsewhere (Redis, a file store) deletes it when the event arrives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from sqlalchemy import delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import insert_missing
from backend.errors import Erased
from backend.feed import NewEvent, append_events
from backend.models import Conversation, Erasure, Event, File, IdempotencyKey, Invoice, Session, Ticket, User
from backend.models.base import Base, now

USER: Final = "user"
CONVERSATION: Final = "conversation"
_NAMED: Final = 500
"""Conversations that one event names; more are told in further events."""


async def admit_user(session: AsyncSession, tenant: str, user: str | None) -> None:
    """Before something is written about a user: waits for an erasure under way. Raises `Erased` after one."""
    if user is not None:
        await _lock(session, tenant, user, exclusive=False)
        await _refuse(session, tenant, USER, user)


async def admit_conversation(session: AsyncSession, tenant: str, conversation: str | None) -> None:
    """Raises `Erased` if the conversation was erased."""
    if conversation is not None:
        await _refuse(session, tenant, CONVERSATION, conversation)


async def welcome_user(session: AsyncSession, tenant: str, user: str) -> None:
    """A user who is created again, on purpose, may be written about again; their old conversations may not."""
    await _lock(session, tenant, user, exclusive=True)
    await session.execute(delete(Erasure).where(Erasure.tenant == tenant, Erasure.kind == USER, Erasure.id == user))


async def erase_user(session: AsyncSession, tenant: str, user: str) -> dict[str, int]:
    """Erases the user and everything of theirs; returns what was deleted, by kind."""
    await _lock(session, tenant, user, exclusive=True)
    await insert_missing(session, Erasure, tenant=tenant, kind=USER, id=user, at=now())
    conversations = (
        await session.execute(
            select(Conversation.id, Conversation.room)
            .where(Conversation.tenant == tenant, Conversation.user_id == user)
            .with_for_update()
        )
    ).all()
    ids = [row.id for row in conversations]
    counts = await _erase(session, tenant, ids)
    counts["conversations"] = len(ids)
    for name, model in (("sessions", Session), ("files", File), ("invoices", Invoice), ("tickets", Ticket)):
        counts[name] = counts.get(name, 0) + await _delete(session, tenant, model, model.user_id == user)
    counts["users"] = await _delete(session, tenant, User, User.id == user)
    await _delete(session, tenant, IdempotencyKey, IdempotencyKey.subject == f"user:{user}")
    rooms = sorted({row.room for row in conversations if row.room is not None})
    await _announce(session, tenant, {"user_id": user, "rooms": rooms[:_NAMED]}, "user.erased", ids)
    return counts


async def erase_conversation(session: AsyncSession, tenant: str, conversation: str) -> dict[str, int]:
    """Erases one conversation; returns what was deleted, by kind."""
    query = select(Conversation.room).where(Conversation.tenant == tenant, Conversation.id == conversation)
    found = (await session.execute(query.with_for_update())).one_or_none()
    counts = await _erase(session, tenant, [conversation])
    counts["conversations"] = 0 if found is None else 1
    rooms = [found.room] if found is not None and found.room is not None else []
    await _announce(session, tenant, {"rooms": rooms}, "conversation.erased", [conversation])
    return counts


async def _erase(session: AsyncSession, tenant: str, conversations: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for some in _slices(conversations):
        for conversation in some:
            await insert_missing(session, Erasure, tenant=tenant, kind=CONVERSATION, id=conversation, at=now())
        # Turns and messages go with their conversation, by the database's own cascade.
        await _delete(session, tenant, Conversation, Conversation.id.in_(some))
        for name, model in (("sessions", Session), ("files", File), ("tickets", Ticket), ("events", Event)):
            gone = await _delete(session, tenant, model, model.conversation_id.in_(some))
            counts[name] = counts.get(name, 0) + gone
        subjects = [f"conversation:{conversation}" for conversation in some]
        await _delete(session, tenant, IdempotencyKey, IdempotencyKey.subject.in_(subjects))
    return counts


async def _announce(
    session: AsyncSession, tenant: str, data: dict[str, Any], kind: str, conversations: Sequence[str]
) -> None:
    slices = list(_slices(conversations)) or [[]]
    events = [NewEvent(kind=kind, data=data | {"conversations": list(some)}) for some in slices]
    await append_events(session, tenant, events)


async def _delete(session: AsyncSession, tenant: str, model: type[Any], condition: Any) -> int:
    result = await session.execute(delete(cast("type[Base]", model)).where(model.tenant == tenant, or_(condition)))
    return cast("Any", result).rowcount


async def _refuse(session: AsyncSession, tenant: str, kind: str, name: str) -> None:
    if await session.get(Erasure, (tenant, kind, name)) is not None:
        raise Erased(kind, name)


async def _lock(session: AsyncSession, tenant: str, user: str, *, exclusive: bool) -> None:
    """Until the transaction ends. SQLite has one writer at a time anyway."""
    if session.get_bind().dialect.name == "postgresql":
        digest = hashlib.sha256(f"{tenant}\0{user}".encode()).digest()
        number = int.from_bytes(digest[:8], "big", signed=True)
        take = func.pg_advisory_xact_lock if exclusive else func.pg_advisory_xact_lock_shared
        await session.execute(select(take(number)))


def _slices(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + _NAMED] for start in range(0, len(items), _NAMED))
