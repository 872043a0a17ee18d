"""File references: where a recording or document lies. The file itself is in somebody else's store."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import ID, Base, OfTenant


class File(OfTenant, Base):
    """One reference."""

    __tablename__ = "files"
    __table_args__ = (Index(None, "tenant", "conversation_id"), Index(None, "tenant", "user_id"))

    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    conversation_id: Mapped[str | None] = mapped_column(String(ID))
    user_id: Mapped[str | None] = mapped_column(String(ID))
    name: Mapped[str] = mapped_column(String(ID))
    media_type: Mapped[str] = mapped_column(String(ID))
    url: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int | None]
    sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
