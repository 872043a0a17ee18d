"""What an operator asks for: calls, durations, turns and handoffs of each day, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from backend.auth import Tenant
from backend.errors import InvalidRequest, responses
from backend.models import Session, Turn
from backend.models.base import now
from backend.state import Parts
from backend.values import Answer

router = APIRouter(prefix="/v1/analytics", tags=["analytics"])
MAX_DAYS: Final = 366
From = Annotated[date | None, Query(alias="from", description="First day, UTC; by default 29 days before the last.")]
Until = Annotated[date | None, Query(alias="to", description="Last day, included; by default today.")]


Column = InstrumentedAttribute[datetime]


class Day(Answer):
    """One day, UTC. A call counts on the day on which it started."""

    day: date
    calls: int
    ended: int
    """Of these, how many have ended."""
    seconds: float
    """Duration of the ended ones, in all."""
    longest_seconds: float
    handoffs: int
    turns: int


class RoleDay(Answer):
    """Turns of one role on one day."""

    day: date
    role: str | None
    turns: int
    interrupted: int


class Days(Answer):
    """Each day of the period, the empty ones included."""

    days: list[Day]


class RoleDays(Answer):
    """Each day and role that had turns."""

    days: list[RoleDay]


@router.get("/calls", operation_id="analyse_calls", responses=responses())
async def analyse_calls(parts: Parts, tenant: Tenant, first: From = None, last: Until = None) -> Days:
    """Calls, durations, handoffs and turns, by day."""
    async with parts.database.reading() as session:
        return Days(days=await _days(session, tenant, *_period(first, last)))


@router.get("/turns", operation_id="analyse_turns", responses=responses())
async def analyse_turns(parts: Parts, tenant: Tenant, first: From = None, last: Until = None) -> RoleDays:
    """Turns of each role, by day."""
    since, until = _period(first, last)
    interrupted = func.count().filter(Turn.interrupted)
    async with parts.database.reading() as session:
        day = _day_of(session, Turn.started_at)
        query = (
            select(day, Turn.role, func.count(), interrupted)
            .where(Turn.tenant == tenant, *_within(Turn.started_at, since, until))
            .group_by(day, Turn.role)
            .order_by(day, Turn.role)
        )
        rows = (await session.execute(query)).all()
    return RoleDays(days=[RoleDay(day=_date(row[0]), role=row[1], turns=row[2], interrupted=row[3]) for row in rows])


@router.get(
    "/calls.csv",
    operation_id="export_calls",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, **responses()},
)
async def export_calls(parts: Parts, tenant: Tenant, first: From = None, last: Until = None) -> Response:
    """The same as CSV, one line a day."""
    async with parts.database.reading() as session:
        days = await _days(session, tenant, *_period(first, last))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Day.model_fields))
    writer.writeheader()
    writer.writerows(day.model_dump() for day in days)
    return Response(
        text.getvalue(),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="calls.csv"'},
    )


async def _days(session: AsyncSession, tenant: str, since: date, until: date) -> list[Day]:
    day = _day_of(session, Session.started_at)
    seconds = func.coalesce(Session.duration_seconds, 0.0)
    calls = {
        _date(row[0]): row
        for row in await session.execute(
            select(
                day,
                func.count(),
                func.count(Session.ended_at),
                func.sum(seconds),
                func.max(seconds),
                func.sum(Session.handoffs),
            )
            .where(Session.tenant == tenant, *_within(Session.started_at, since, until))
            .group_by(day)
        )
    }
    day = _day_of(session, Turn.started_at)
    turns = {
        _date(row[0]): row[1]
        for row in await session.execute(
            select(day, func.count())
            .where(Turn.tenant == tenant, *_within(Turn.started_at, since, until))
            .group_by(day)
        )
    }
    found: list[Day] = []
    for number in range((until - since).days + 1):
        moment = since + timedelta(days=number)
        _, count, ended, total, longest, handoffs = calls.get(moment, (None, 0, 0, 0.0, 0.0, 0))
        found.append(
            Day(
                day=moment,
                calls=count,
                ended=ended,
                seconds=total,
                longest_seconds=longest,
                handoffs=int(handoffs),
                turns=turns.get(moment, 0),
            )
        )
    return found


def _period(first: date | None, last: date | None) -> tuple[date, date]:
    until = last or now().date()
    if not 1970 < until.year < 9000 or (first is not None and not 1970 < first.year < 9000):
        raise InvalidRequest("The period is outside of the years 1971 to 8999.")
    since = first or until - timedelta(days=29)
    if not 0 <= (until - since).days < MAX_DAYS:
        raise InvalidRequest(f"The period must have at least one day and at most {MAX_DAYS}: change `from` or `to`.")
    return since, until


def _within(column: Column, since: date, until: date) -> tuple[ColumnElement[bool], ...]:
    begin = datetime.combine(since, time(), UTC)
    return column >= begin, column < datetime.combine(until, time(), UTC) + timedelta(days=1)


def _day_of(session: AsyncSession, column: Column) -> ColumnElement[Any]:
    """The day, UTC, as the database tells it."""
    if session.get_bind().dialect.name == "sqlite":
        return func.date(column)
    return func.date(func.timezone(literal_column("'UTC'"), column))


def _date(value: Any) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value
