"""Pages of a list: a cursor says behind which item the next one starts, so what is added meanwhile shifts nothing."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar, cast

from fastapi import Query
from sqlalchemy import Select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from backend.errors import InvalidRequest
from backend.values import MAX_NUMBER, Answer

Item = TypeVar("Item", bound=Answer)
Row = TypeVar("Row")

Limit = Annotated[int, Query(ge=1, le=200, description="Items of a page.")]
Cursor = Annotated[
    str | None, Query(max_length=1000, description="`next_cursor` of the page before; none for the first page.")
]


class Page(Answer, Generic[Item]):
    """Some items, and where the next ones start."""

    items: list[Item]
    next_cursor: str | None = None
    """None behind the last item."""


def only(query: Select[Row], *wanted: tuple[InstrumentedAttribute[Any], Any]) -> Select[Row]:
    """The query, narrowed to the rows with these values. One that is None was not asked for, and narrows nothing."""
    return query.where(*(column == value for column, value in wanted if value is not None))


async def read_page(
    session: AsyncSession,
    answer: type[Item],
    query: Select[Any],
    order: Sequence[InstrumentedAttribute[Any]],
    *,
    cursor: str | None,
    limit: int,
) -> Page[Item]:
    """The rows behind the cursor as answers, and the cursor behind them.

    Raises `InvalidRequest` for a cursor of another list.
    """
    if cursor is not None:
        behind = tuple_(*_read(cursor, order), types=[column.type for column in order])
        query = query.where(tuple_(*order) > behind)
    rows = list(await session.scalars(query.order_by(*order).limit(limit + 1)))
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        following = write_cursor([getattr(rows[-1], column.key) for column in order])
    return Page(items=[answer.model_validate(row) for row in rows], next_cursor=following)


def write_cursor(values: Sequence[Any]) -> str:
    """Opaque to the client: the values of the ordering columns of the last item."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def _read(cursor: str, order: Sequence[InstrumentedAttribute[Any]]) -> list[Any]:
    refusal = InvalidRequest("The cursor is not one of this list: use `next_cursor` of a page as it is.")
    try:
        values: Any = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise refusal from error
    if not isinstance(values, list) or len(cast("list[Any]", values)) != len(order):
        raise refusal
    return [_value(column, value, refusal) for column, value in zip(order, cast("list[Any]", values), strict=True)]


def _value(column: InstrumentedAttribute[Any], value: Any, refusal: InvalidRequest) -> Any:
    wanted = column.type.python_type
    if wanted is datetime and isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise refusal from error
    if wanted is int and isinstance(value, int) and abs(value) <= MAX_NUMBER:
        return value
    if wanted is str and isinstance(value, str) and "\x00" not in value and value.isprintable():
        return value
    raise refusal
