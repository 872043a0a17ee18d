"""A lease: ownership of a resource for a time, as a value that is passed to whatever acts on it.

What `Lease.held` answers costs nothing: it looks at the holder's own monotonic clock and at what this process has been
told. Its deadline is conservative: it starts before the request was sent, never when the reply arrived, so it ends no
later than the server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from coordination.errors import LeaseLost
from coordination.ids import AgentId, Fence, RequestId

if TYPE_CHECKING:
    from coordination.leases.keeper import Keeper
    from coordination.leases.request import LeaseRequest


class LossReason(StrEnum):
    """Why a lease is no longer held."""

    RELEASED = "released"
    """The holder gave it back."""
    EXPIRED = "expired"
    """It could not be renewed in time, or the server no longer knows it."""
    REVOKED = "revoked"
    """A policy, a supervisor or an operator took it away."""
    SUPERSEDED = "superseded"
    """Somebody else holds it under a higher fence."""
    MOVED = "moved"
    """A handoff moved it to another agent."""
    CLOSED = "closed"
    """The coordinator that keeps it alive was closed."""


class Lease:
    """What the holder of a resource has in hand. Made by a grant; ended by `release`, or by being lost.

    It is renewed in the background for as long as it is held. `lost` is set as soon as this process knows that the
    lease is gone, whatever the reason; `reason` tells which.
    """

    __slots__ = (
        "__weakref__",
        "_keeper",
        "deadline",
        "doubtful",
        "doubts",
        "fence",
        "lost",
        "on_lost",
        "reason",
        "request",
        "strict",
    )

    def __init__(self, keeper: Keeper, request: LeaseRequest, fence: Fence, *, deadline: float, strict: bool) -> None:
        self._keeper = keeper
        self.request = request
        self.fence = fence
        """Grows with every grant of the resource. Give it to whatever the lease protects."""
        self.deadline = deadline
        """Loop time up to which the last reply of the server vouches for the lease."""
        self.strict = strict
        """Whether `held` ends with the deadline. Under policy `keep`, only until the grant is confirmed."""
        self.doubtful = False
        """Something speaks against the lease (a higher fence, a return into the room): the server has to explain it."""
        self.doubts = 0
        """How often it was doubted: a reply to a question that was asked before the last doubt does not end that."""
        self.lost = asyncio.Event()
        self.reason: LossReason | None = None
        self.on_lost: list[Callable[[Lease], None]] = []
        """Called in the event loop at the moment of the loss, before any task that waits for `lost` runs."""

    @property
    def resource(self) -> str:
        """What is held, as it is called in messages."""
        return self.request.resource

    @property
    def agent(self) -> AgentId:
        return self.request.agent

    @property
    def request_id(self) -> RequestId:
        return self.request.id

    @property
    def held(self) -> bool:
        """Whether the holder may act now. Local and free of cost: a gate asks before each piece of audio.

        False once the lease is lost, while it is doubtful, and, where it is strict, past its deadline.
        """
        if self.reason is not None or self.doubtful:
            return False
        return not self.strict or asyncio.get_running_loop().time() < self.deadline

    async def release(self) -> bool:
        """Gives the lease back; the next waiter holds it when this returns. True if it was still held.

        `held` is False from the first moment on. Safe to call twice. If the store cannot be reached, it is
        told as soon as it can be, and the lease ends with its TTL. A cancelled release is sent all the same.
        """
        return await self._keeper.release(self)

    def require(self) -> None:
        """Raises `LeaseLost` if the lease is no longer held."""
        if self.reason is not None:
            raise LeaseLost(self.resource, self.fence, self.reason)

    def __repr__(self) -> str:
        state = self.reason or ("held" if self.held else "doubtful")
        return f"<Lease {self.resource} fence={self.fence} {state}>"
