"""Times as the server counts them: whole microseconds since 1970, exact in both directions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    """Microseconds since 1970. A moment without a time zone is taken as local time, as `datetime` does."""
    return (moment.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def moment(micros: int) -> datetime:
    """The moment in UTC of so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def us(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
