"""What providers say of their own budgets, put into the buckets that all workers share.

A 429 with Retry-After closes the provider's buckets for that long, and lets them refill from empty: whoever waited does
not come back all at once. A header with the remaining quota takes a bucket down to it. Neither ever gives anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from coordination.errors import InvalidArgument
from coordination.limits.buckets import MICROSECOND
from coordination.limits.shapes import Shapes, Subject
from coordination.limits.units import FINEST, Unit, amount
from coordination.store.scripts import Script

FEEDBACK: Final = Script.load("limits/feedback")

LONGEST: Final = timedelta(hours=1)
"""Longer Retry-After is cut to this: a provider's mistake is not to close it for a day."""


def corrections(
    shapes: Shapes,
    subject: Subject,
    retry_after: timedelta | None,
    remaining: Mapping[str, float],
    units: tuple[str, ...],
) -> list[str | int]:
    """Field and microseconds for each bucket that has to be corrected. Raises `InvalidArgument`."""
    left = {_unit(name): amount(_unit(name), value, zero=True) for name, value in remaining.items()}
    closed = {_unit(name) for name in units} or set(Unit)
    if retry_after is not None and retry_after < timedelta(0):
        raise InvalidArgument(f"retry_after={retry_after} is in the past: give a duration.")
    changes: list[str | int] = []
    for rate in shapes.of_account(subject):
        ahead = 0
        if retry_after is not None and rate.unit in closed:
            wait = min(retry_after, LONGEST) // MICROSECOND
            ahead = max(wait + rate.slack - rate.interval(FINEST), wait)
        if rate.unit in left:
            ahead = max(ahead, rate.slack - rate.interval(min(left[rate.unit], rate.quantity)))
        if ahead > 0:
            changes += (rate.field, ahead)
    return changes


def _unit(name: str) -> Unit:
    try:
        unit = Unit(name)
    except ValueError:
        known = ", ".join(unit.value for unit in Unit if unit is not Unit.STREAMS)
        raise InvalidArgument(f"{name!r} is no unit: choose from {known}.") from None
    if unit is Unit.STREAMS:
        raise InvalidArgument("Streams are counted by who holds them: feedback is for the other units.")
    return unit
