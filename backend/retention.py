"""Deleting what is past its time: conversations with what was said, sessions, events, and answers to old requests."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any, Final, cast

from sqlalchemy import delete, select, tuple_

from backend.database import Database
from backend.models import Conversation, Event, IdempotencyKey, Session
from backend.models.base import now
from backend.settings import BackendSettings
from backend.state import ServiceParts
from backend.stopping import Stopped

_BATCH: Final = 500
"""Rows of one transaction: nobody waits long for a lock."""

log = logging.getLogger("backend.retention")


async def prune(database: Database, settings: BackendSettings) -> dict[str, int]:
    """Deletes what is past its retention; returns how much, by table."""
    moment = now()
    old_keys = moment - timedelta(days=settings.idempotency_days)
    deleted = {"idempotency_keys": await _prune(database, IdempotencyKey, IdempotencyKey.at < old_keys)}
    if settings.retention_days:
        old = moment - timedelta(days=settings.retention_days)
        ended = Conversation.ended_at.is_(None) | (Conversation.ended_at < old)
        deleted["conversations"] = await _prune(database, Conversation, (Conversation.created_at < old) & ended)
        deleted["sessions"] = await _prune(database, Session, Session.saved_at < old)
        deleted["events"] = await _prune(database, Event, Event.saved_at < old)
    return deleted


async def prune_forever(parts: ServiceParts) -> None:
    """Until the service ends, every so many hours; several processes may do it, each row goes once."""
    pause = parts.settings.prune_hours * 3600
    while pause:
        try:
            await parts.stopping.unless(asyncio.sleep(pause))
        except Stopped:
            return
        try:
            await prune(parts.database, parts.settings)
        except Exception:
            log.warning("what is past its retention stays until the next look", exc_info=True)


async def _prune(database: Database, model: type[Any], condition: Any) -> int:
    key = list(model.__table__.primary_key.columns)
    some = select(*key).where(condition).limit(_BATCH)
    deleted = 0
    while True:
        async with database.writing() as session:
            result = await session.execute(delete(model).where(tuple_(*key).in_(some)))
        count = cast("Any", result).rowcount
        deleted += count
        if count < _BATCH:
            return deleted
