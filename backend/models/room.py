"""Rooms: which tenant a LiveKit room belongs to, and the highest fence that wrote its metadata."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import ID, Base


class Room(Base):
    """One room name. LiveKit has one namespace for all tenants, so the name alone is the key."""

    __tablename__ = "rooms"

    name: Mapped[str] = mapped_column(String(ID), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(ID), index=True)
    conversation_id: Mapped[str | None] = mapped_column(String(ID))
    user_id: Mapped[str | None] = mapped_column(String(ID))
    fence: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
