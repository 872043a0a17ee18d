"""What limits count, and how amounts are checked."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from coordination.errors import InvalidArgument


class Unit(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CHARACTERS = "characters"
    AUDIO_SECONDS = "audio_seconds"
    STREAMS = "streams"
    """Connections that are open at the same time; held, not used up."""

    # An enum's own hash is a call into Python; units are looked up some twenty times for each admission.
    __hash__ = str.__hash__


class Scope(StrEnum):
    """Whose use is counted together."""

    PROVIDER = "provider"
    """Everybody's use of the provider."""
    MODEL = "model"
    TENANT = "tenant"
    ROOM = "room"
    ROLE = "role"
    CALLER = "caller"


FINEST: Final = 1000
"""Amounts are counted in thousandths, so that a fraction of a second of audio is an integer too."""

Costs = dict[Unit, int]
"""Thousandths of each unit."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def amount(unit: Unit, value: float, *, zero: bool = False) -> int:
    """The value in thousandths. Raises `InvalidArgument` unless it is a finite number above 0 (or 0, if `zero`).

    Only seconds of audio can be fractions.
    """
    if not _is_number(value) or not math.isfinite(value):
        raise InvalidArgument(f"{unit.value}={value!r} is no amount: give a number above 0.")
    if value < 0 or (value == 0 and not zero):
        raise InvalidArgument(f"{unit.value}={value!r} is not possible: give a number above 0, or leave it out.")
    if unit is not Unit.AUDIO_SECONDS and value != int(value):
        raise InvalidArgument(f"{unit.value}={value!r} is no whole number: only audio_seconds can be a fraction.")
    return math.ceil(value * FINEST)


_UNITS: Final = tuple(Unit)


def costs_of(*amounts: float | None) -> Costs:
    """What a request costs, from an amount for each unit, in their order.

    Raises `InvalidArgument` for an amount that is 0, negative or no number, or none at all.
    """
    costs: Costs = {}
    for unit, value in zip(_UNITS, amounts, strict=True):
        if value is not None:
            costs[unit] = value * FINEST if type(value) is int and value > 0 else amount(unit, value)
    if not costs:
        raise InvalidArgument(
            "Nothing was asked for: give requests=, tokens=, characters=, audio_seconds= or streams=."
        )
    if costs.get(Unit.STREAMS, FINEST) != FINEST:
        raise InvalidArgument("One reservation holds one stream: make a reservation for each.")
    return costs
