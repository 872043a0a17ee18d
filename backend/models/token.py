"""Tokens: how a request says which tenant it comes from. The secret itself is never stored."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import ID, Base


class Token(Base):
    """One bearer token of a tenant."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(ID), index=True)
    label: Mapped[str] = mapped_column(String(ID))
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    """SHA-256 of the secret, which has 256 random bits: nothing to guess, so no slow hash is needed."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
