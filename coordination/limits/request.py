"""One request for a part of a provider's limits: everything that a repetition of it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from coordination.ids import ProcessId, RequestId
from coordination.limits.buckets import Shape
from coordination.limits.config import CALLS
from coordination.limits.units import Costs
from coordination.store.keys import LimitKeys
from coordination.store.wire import Hole

MICROSECONDS = 1_000_000


class Admission(NamedTuple):
    """That a request was admitted."""

    variant: int
    """1: within the tenant's guarantees; 2: as everybody; 0: by this process alone, while Redis is away."""
    moment: int
    """By the server's clock, in microseconds: what it was charged as of."""


@dataclass(slots=True, kw_only=True, eq=False)
class LimitRequest:
    """A request, and what became of it."""

    id: RequestId
    keys: LimitKeys
    shape: Shape
    costs: Costs
    slot: str
    """What holds its slots: the request's id, or for a call its room."""
    process: ProcessId
    priority: int
    entered_at: float
    """Loop time at which it was made."""
    give_up: float | None
    """Loop time at which its wait ends; None for never."""
    held_up_by: int = 0
    """Index of the ordinary check that was the last to pass, as last told."""
    waited: bool = False
    admitted: asyncio.Future[Admission] | None = field(default=None)
    """Set while it waits."""
    on_place: Callable[[int], None] | None = None
    """Told its place in its tenant's queue whenever that changes."""
    place: int = 0
    alone: bool = False
    """Whether this process is deciding on it, Redis being away."""

    share: int = field(init=False)
    """Microseconds that it costs its tenant's share."""
    horizon: int = field(init=False)
    """Microseconds by which it may be admitted ahead of its moment."""
    checks: list[Any] = field(init=False)
    """Number of values of the first variant, its checks, and those of the second."""

    def __post_init__(self) -> None:
        self.share, self.horizon, self.checks = self.shape.prepared(self.costs, self.slot)

    @property
    def limit(self) -> str:
        """The limit that holds it up."""
        names = self.shape.names
        return names[self.held_up_by] if self.held_up_by < len(names) else ""

    def admit_args(self, now: float) -> list[str | int]:
        """ARGV of limits/admit."""
        head = [self.keys.base, self.id, self.process, self.shape.tenant]
        return [*head, self.priority, self.life(now), self.share, self.horizon, *self.checks]

    def admit_form(self) -> list[str | Hole]:
        """The same for all requests of a plain shape: what is filled in are the id, and `admit_numbers`."""
        number = Hole.NUMBER
        checks = [number if place % 4 == 3 else str(value) for place, value in enumerate(self.checks)]
        return [self.keys.base, Hole.TEXT, self.process, self.shape.tenant, number, number, number, number, *checks]

    def admit_numbers(self, now: float) -> tuple[int, ...]:
        return (self.priority, self.life(now), self.share, self.horizon, *self.checks[3::4])

    def life(self, now: float) -> int:
        """Microseconds that it may wait."""
        return int((UNBOUNDED if self.give_up is None else max(self.give_up - now, 0.0)) * MICROSECONDS)

    def for_slots_again(self) -> LimitRequest:
        """A request for the same slots, without the rates, that does not wait. A call that goes on is not refused."""
        now = asyncio.get_running_loop().time()
        shape = self.shape.unbounded() if self.shape.provider == CALLS else self.shape.slots_only()
        return replace(self, id=RequestId(f"{self.id}+"), shape=shape, entered_at=now, give_up=now, admitted=None)

    def withdraw_args(self) -> list[str | int]:
        """ARGV of limits/withdraw."""
        return [self.keys.base, self.id, self.process, self.shape.tenant, *self.checks]


UNBOUNDED = 86_400.0
"""Seconds for which a request without a timeout stands in the queue; whoever waits longer queues again."""
