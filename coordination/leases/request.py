"""What is asked of the store for one lease, and what became of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from coordination.errors import InvalidArgument
from coordination.ids import AgentId, ProcessId, RequestId, RoleName
from coordination.ports import Silencer
from coordination.store.keys import LeaseKeys

if TYPE_CHECKING:
    from coordination.leases.lease import Lease

MICROSECONDS: Final = 1_000_000
MAX_TTL: Final = timedelta(hours=1)
MIN_TTL: Final = timedelta(milliseconds=50)
UNBOUNDED: Final = 86_400.0
"""Seconds for which a request without a timeout stands in the queue; whoever waits longer queues again."""


class Expiry(StrEnum):
    """Who may have an expired lease."""

    FREE = "free"
    """The next one that asks: outside LiveKit, where the fence protects what the lease guards."""
    SILENCE = "silence"
    """Nobody, until the media server confirmed that the old holder is silent."""


@dataclass(slots=True, kw_only=True)
class LeaseRequest:
    """One request: everything that a repetition of it needs."""

    resource: str
    """What is asked for, as it is called in messages."""
    kind: str
    """`floor` or `lock`: the label of its metrics."""
    keys: LeaseKeys
    id: RequestId
    agent: AgentId
    process: ProcessId
    role: RoleName
    ttl: timedelta
    priority: int = 0
    keep: bool = False
    """Policy `keep`: a holder that cannot reach the store goes on; safe only with a silencer."""
    silencer: Silencer | None = None
    ttl_us: int = field(init=False)

    def __post_init__(self) -> None:
        if not MIN_TTL <= self.ttl <= MAX_TTL:
            raise InvalidArgument(f"A TTL of {self.ttl} for {self.resource} is not possible: give 50 ms to one hour.")
        if not -(2**31) < self.priority < 2**31:
            raise InvalidArgument(f"Priority {self.priority} is out of range: give a number that fits 32 bits.")
        self.ttl_us = int(self.ttl.total_seconds() * MICROSECONDS)

    @property
    def expiry(self) -> Expiry:
        return Expiry.SILENCE if self.silencer is not None else Expiry.FREE

    @property
    def options(self) -> tuple[str, str, str]:
        """ARGV 1 to 3 of every lease script."""
        return self.keys.channel, self.keys.everyone, "1" if self.keys.events else "0"


@dataclass(slots=True, kw_only=True, eq=False)
class Pending:
    """A request that waits for its grant."""

    request: LeaseRequest
    granted: asyncio.Future[Lease]
    entered_at: float
    """Loop time at which the wait began."""
    give_up: float | None = None
    """Loop time at which it ends; None for never."""
    sent_at: float = 0.0
    """Loop time before the last sending; with `server_time` it is what a pushed grant is dated by."""
    server_time: int = 0
    """The server's clock in the reply to that sending, in microseconds."""
    suspect: tuple[AgentId, int] | None = None
    """The expired holder, with its fence, that the store asks to have silenced."""
    suspect_shut_at: float = 0.0
    """Loop time from which the suspect's own gate is closed, if policy `silence` is the one of all."""
