"""Outgoing webhooks: followers of the feed that are called instead of asking."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import ID, Base, OfTenant


class Webhook(OfTenant, Base):
    """One receiver, and how far in the feed it is."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    kinds: Mapped[list[str]]
    """Kinds of events to deliver; empty for all."""
    secret: Mapped[str] = mapped_column(String(64))
    """What deliveries are signed with. Stored as it is: signing needs it."""
    delivered: Mapped[int]
    """Sequence of the last event that was delivered, set aside or not wanted."""
    claimed_until: Mapped[datetime | None]
    """Until then one process delivers to it; when that process dies, another takes over."""
    created_at: Mapped[datetime]


class FailedDelivery(OfTenant, Base):
    """An event that a receiver did not take within all its tries; the ones behind it were not held up."""

    __tablename__ = "failed_deliveries"
    __table_args__ = (
        ForeignKeyConstraint(["tenant", "webhook_id"], ["webhooks.tenant", "webhooks.id"], ondelete="CASCADE"),
    )

    webhook_id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
