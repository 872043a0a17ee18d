"""Answers that were given, by Idempotency-Key: the same request again gets the same answer and writes nothing."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import Base, OfTenant


class IdempotencyKey(OfTenant, Base):
    """One key. Written in the transaction that did the work, so neither is there without the other."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request: Mapped[bytes] = mapped_column(LargeBinary(32))
    """SHA-256 of method, path and body."""
    status: Mapped[int]
    answer: Mapped[str] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(String(300), index=True)
    """Whose data the answer holds (`user:42`, `conversation:abc`): erased with it."""
    at: Mapped[datetime] = mapped_column(index=True)
