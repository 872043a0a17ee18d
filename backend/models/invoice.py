"""Invoices, for the reference application's billing agent."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import Date, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from backend.models.base import ID, Base, OfTenant


class Invoice(OfTenant, Base):
    """What a user is asked to pay."""

    __tablename__ = "invoices"
    __table_args__ = (Index(None, "tenant", "user_id", "issued_on"),)

    id: Mapped[str] = mapped_column(String(ID), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(ID))
    issued_on: Mapped[date] = mapped_column(Date)
    due_on: Mapped[date] = mapped_column(Date)
    currency: Mapped[str] = mapped_column(String(3))
    items: Mapped[list[dict[str, Any]]]
    """Each with `text` and `cents`."""
    status: Mapped[str] = mapped_column(String(16))
    updated_at: Mapped[datetime]
