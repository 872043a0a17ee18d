"""The event feed: what happened in calls, and to the data, in one order per tenant."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import ID, Base, OfTenant


class Counter(OfTenant, Base):
    """A number that grows; its row is locked until the transaction that took from it ends, so that whoever reads
    number n finds everything below n committed."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[int]


class Event(OfTenant, Base):
    """One event. `id` is its source's, and the second one with the same id is not stored."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("tenant", "id"), Index(None, "tenant", "conversation_id"))

    sequence: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(ID))
    kind: Mapped[str] = mapped_column(String(64))
    room: Mapped[str | None] = mapped_column(String(ID))
    conversation_id: Mapped[str | None] = mapped_column(String(ID))
    agent: Mapped[str | None] = mapped_column(String(ID))
    role: Mapped[str | None] = mapped_column(String(ID))
    fence: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(String(ID))
    data: Mapped[dict[str, Any]]
    at: Mapped[datetime]
    saved_at: Mapped[datetime] = mapped_column(index=True)
