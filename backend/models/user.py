"""Users, and what must not come back after it was erased."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import ID, Base, OfTenant


class User(OfTenant, Base):
    """Somebody who calls; `id` is the application's."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(ID))
    language: Mapped[str | None] = mapped_column(String(35))
    preferences: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Erasure(OfTenant, Base):
    """A user or conversation whose data was erased: an outbox that still holds some of it is refused."""

    __tablename__ = "erasures"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    """`user` or `conversation`."""
    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    at: Mapped[datetime]
