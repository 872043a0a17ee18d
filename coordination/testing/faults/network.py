"""Faults of a connection, by a proxy that lies in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from coordination.testing.faults.fault import Fault, FaultKind
from coordination.testing.proxy import Direction, FaultyProxy


def delay(proxy: FaultyProxy, *, by: timedelta, lasting: timedelta, name: str) -> Fault:
    """Everything arrives later by so much, each way."""

    async def begin() -> None:
        proxy.delay(by)

    return _healed(FaultKind.DELAY, proxy, begin, lasting, name)


def black_hole(proxy: FaultyProxy, *, lasting: timedelta, name: str, direction: Direction = Direction.BOTH) -> Fault:
    """Nothing arrives, and nobody is told."""

    async def begin() -> None:
        proxy.black_hole(direction)

    return _healed(FaultKind.BLACK_HOLE, proxy, begin, lasting, name)


def cut(proxy: FaultyProxy, *, name: str) -> Fault:
    """All connections are reset once."""

    async def begin() -> None:
        proxy.cut()

    return Fault(kind=FaultKind.CUT, target=name, begin=begin)


def refuse(proxy: FaultyProxy, *, lasting: timedelta, name: str) -> Fault:
    """All connections are reset, and none can be made for a time."""

    async def begin() -> None:
        proxy.refuse()
        proxy.cut()

    return Fault(kind=FaultKind.REFUSE, target=name, begin=begin, end=proxy.accept, lasting=lasting)


def _healed(
    kind: FaultKind, proxy: FaultyProxy, begin: Callable[[], Awaitable[None]], lasting: timedelta, name: str
) -> Fault:
    async def end() -> None:
        proxy.heal()

    return Fault(kind=kind, target=name, begin=begin, end=end, lasting=lasting)
