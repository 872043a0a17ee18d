"""Sessions: one finished or running call, as the agent that held the floor last saw it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import ID, Base, OfTenant


class Session(OfTenant, Base):
    """The record of a call; saved as often as it changes, last at its end."""

    __tablename__ = "sessions"
    __table_args__ = (Index(None, "tenant", "started_at"), Index(None, "tenant", "conversation_id"))

    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    conversation_id: Mapped[str | None] = mapped_column(String(ID))
    user_id: Mapped[str | None] = mapped_column(String(ID), index=True)
    room: Mapped[str | None] = mapped_column(String(ID))
    room_sid: Mapped[str | None] = mapped_column(String(ID))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    duration_seconds: Mapped[float | None]
    participants: Mapped[int | None]
    messages: Mapped[int | None]
    handoffs: Mapped[int]
    roles: Mapped[list[str]]
    reason: Mapped[str | None] = mapped_column(String(ID))
    details: Mapped[dict[str, Any]]
    fence: Mapped[int]
    saved_at: Mapped[datetime]
