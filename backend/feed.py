"""The event feed: one order per tenant, each event once.

Invariant: sequences are taken under a lock that is held until the transaction ends, so a reader who has seen number n
will never find a smaller one later.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import insert
from backend.models import Counter, Event
from backend.models.base import now

FEED: Final = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event on its way into the feed. `id` is the source's: the same id again is the same event."""

    kind: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    room: str | None = None
    conversation_id: str | None = None
    agent: str | None = None
    role: str | None = None
    fence: int | None = None
    reason: str | None = None
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    at: datetime = field(default_factory=now)


async def take_numbers(session: AsyncSession, tenant: str, name: str, count: int = 1, *, first: int = 1) -> int:
    """Takes `count` numbers in a row and returns the first of them. Others wait until this transaction ends."""
    statement = insert(session, Counter).values(tenant=tenant, name=name, value=first - 1 + count)
    grown = statement.on_conflict_do_update(
        index_elements=["tenant", "name"], set_={"value": Counter.value + count}
    ).returning(Counter.value)
    last = (await session.execute(grown)).scalar_one()
    return last - count + 1


async def append_events(session: AsyncSession, tenant: str, events: Sequence[NewEvent]) -> int:
    """Appends those that are not in the feed yet, in the given order; returns how many."""
    if not events:
        return 0
    start = await take_numbers(session, tenant, FEED, len(events))  # also the lock: nobody else appends from here on
    unique = {event.id: event for event in reversed(events)}
    known = set(await session.scalars(select(Event.id).where(Event.tenant == tenant, Event.id.in_(unique))))
    new = [event for event in events if event.id not in known and unique[event.id] is event]
    session.add_all(
        Event(
            tenant=tenant,
            sequence=start + number,
            id=event.id,
            kind=event.kind,
            room=event.room,
            conversation_id=event.conversation_id,
            agent=event.agent,
            role=event.role,
            fence=event.fence,
            reason=event.reason,
            data=event.data,
            at=event.at,
            saved_at=now(),
        )
        for number, event in enumerate(new)
    )
    await session.flush()
    return len(new)
