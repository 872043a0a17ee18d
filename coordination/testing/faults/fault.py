"""A fault as a value, and making it happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from coordination.errors import CoordinationError


class FaultKind(StrEnum):
    """What is done."""

    KILL = "kill"
    """SIGKILL."""
    PAUSE = "pause"
    """SIGSTOP, and SIGCONT later: a process that hangs, a machine that sleeps."""
    REDIS_STOP = "redis-stop"
    """Away for a time; comes back with its data."""
    REDIS_HANG = "redis-hang"
    """Accepts connections and answers nothing for a time."""
    REDIS_RESTART = "redis-restart"
    """Comes back at once, with its data and without its connections."""
    REDIS_WIPE = "redis-wipe"
    """FLUSHALL: connections stay, all else is gone."""
    REDIS_EMPTY = "redis-empty"
    """Restarted without its data."""
    REDIS_OLD = "redis-old"
    """Restarted with data of an earlier moment, as from a backup."""
    REDIS_FAILOVER = "redis-failover"
    """It dies, and a replica of it is promoted at its address."""
    SUBSCRIPTIONS = "subscriptions"
    """All subscribing connections are closed at once."""
    DELAY = "delay"
    CUT = "cut"
    BLACK_HOLE = "black-hole"
    REFUSE = "refuse"
    LIVEKIT_RESTART = "livekit-restart"


class FaultImpossible(CoordinationError):
    """The fault cannot be inflicted: its victim is gone, or the machine has no way to do it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One moment on both clocks."""

    monotonic: float
    """`time.monotonic()`, which all processes of a machine share."""
    wall: float
    """Seconds since 1970."""

    @classmethod
    def now(cls) -> Moment:
        return cls(monotonic=time.monotonic(), wall=time.time())


async def nothing() -> None:
    """The end of a fault that is over as soon as it has happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A fault that happened."""

    kind: FaultKind
    target: str
    at: Moment
    until: Moment | None = None
    """When it was undone; None while it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What to do, to what, for how long. Made by the functions of this package."""

    kind: FaultKind
    target: str
    """What to call the victim in front of people."""
    begin: Callable[[], Awaitable[None]]
    """Returns when it has happened. Raises `FaultImpossible`."""
    end: Callable[[], Awaitable[None]] = nothing
    lasting: timedelta = timedelta(0)


def ignore_strike(_strike: Strike) -> None:
    """For whoever waits for the end only."""


async def inflict(fault: Fault, *, tell: Callable[[Strike], None] = ignore_strike) -> Strike:
    """Makes it happen, and returns when it is over and undone. `tell` is called as soon as it has happened.

    Cancelled, it undoes what it did. Raises `FaultImpossible`, then nothing was done.
    """
    await fault.begin()
    strike = Strike(kind=fault.kind, target=fault.target, at=Moment.now())
    try:
        tell(strike)
        await asyncio.sleep(fault.lasting.total_seconds())
    finally:
        # Undone even when whoever waits is cancelled meanwhile: a stopped process would stay so for ever.
        ending = asyncio.ensure_future(fault.end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])
            raise
    return replace(strike, until=Moment.now())
