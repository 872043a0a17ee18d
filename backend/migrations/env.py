"""Alembic's environment: runs on the connection that `backend.migrations` hands over, in its transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from backend.models import Base

_LOCK = 4_711_001
"""Of the migration itself: processes that start together migrate one after the other (PostgreSQL)."""


def run(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
