"""Conversations, their turns and messages: what was said, by whom, in order.

Order is by fence, then by sequence: within one fence one agent holds the floor and its outbox delivers in order, and
fences grow from holder to holder. So a turn that arrives late, from an outbox that was drained by somebody else, still
stands where it was said.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import ID, Base, OfTenant


class Conversation(OfTenant, Base):
    """One conversation; usually one call."""

    __tablename__ = "conversations"
    __table_args__ = (
        Index(None, "tenant", "room", "created_at"),
        Index(None, "tenant", "user_id", "created_at"),
        Index(None, "tenant", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(String(ID))
    room: Mapped[str | None] = mapped_column(String(ID))
    """Name of the LiveKit room."""
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    messages: Mapped[int] = mapped_column(default=0)
    """How many were appended; the last one's sequence. Its row is the lock of the conversation's order."""
    turns: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    """The highest that a turn or message carried."""


class Turn(OfTenant, Base):
    """What one agent saved at once: as a rule what the caller said and what was answered."""

    __tablename__ = "turns"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "conversation_id"], ["conversations.tenant", "conversations.id"], ondelete="CASCADE"
        ),
        Index(None, "tenant", "conversation_id", "fence", "sequence"),
        Index(None, "tenant", "started_at"),
    )

    conversation_id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    fence: Mapped[int]
    agent: Mapped[str | None] = mapped_column(String(ID))
    role: Mapped[str | None] = mapped_column(String(ID))
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    interrupted: Mapped[bool]


class Message(OfTenant, Base):
    """One utterance."""

    __tablename__ = "messages"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "conversation_id"], ["conversations.tenant", "conversations.id"], ondelete="CASCADE"
        ),
        Index(None, "tenant", "conversation_id", "fence", "sequence"),
    )

    conversation_id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    fence: Mapped[int]
    turn: Mapped[int | None]
    """Sequence of the turn that it was saved with."""
    speaker: Mapped[str] = mapped_column(String(16))
    agent: Mapped[str | None] = mapped_column(String(ID))
    """The agent that said it, or that heard the caller say it."""
    role: Mapped[str | None] = mapped_column(String(ID))
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    played_seconds: Mapped[float | None]
    interrupted: Mapped[bool]
    saved_at: Mapped[datetime]
