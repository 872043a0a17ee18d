"""General locks: a lease on anything that processes must not do twice (charge a card, dispatch an agent).

A lock is advice: a process that stops for longer than the TTL can wake up believing that it still holds. What protects
is the fence: pass `lease.fence` to whatever the lock guards, and have it refuse a lower one than it has seen.
(M. Kleppmann, How to do distributed locking, 2016.)
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Final

from coordination.ids import AgentId, RoleName, new_request_id
from coordination.leases.engine import LeaseEngine
from coordination.leases.holding import holding
from coordination.leases.lease import Lease
from coordination.leases.request import LeaseRequest

LOCK_TTL: Final = timedelta(seconds=10)
LOCK_TIMEOUT: Final = timedelta(seconds=10)


class Locks:
    """Named locks over all processes that share the store and its prefix."""

    def __init__(self, engine: LeaseEngine) -> None:
        self._engine = engine

    async def acquire(
        self,
        resource: str,
        *,
        ttl: timedelta = LOCK_TTL,
        timeout: timedelta | None = LOCK_TIMEOUT,
        priority: int = 0,
    ) -> Lease:
        """Waits for the lock; larger `priority` first, equal ones in order of arrival.

        The lease is renewed until it is released. Raises `LeaseTimeout` after `timeout` (None waits without a bound; a
        zero one asks once), `InvalidName`, `InvalidArgument` for a TTL outside 50 ms to one hour, `StoreUnavailable`.
        """
        return await self._engine.acquire(self._request(resource, ttl, priority), timeout)

    async def attempt(self, resource: str, *, ttl: timedelta = LOCK_TTL) -> Lease | None:
        """Asks once: the lease, or None if the lock is taken."""
        return await self._engine.attempt(self._request(resource, ttl, 0))

    def hold(
        self,
        resource: str,
        *,
        ttl: timedelta = LOCK_TTL,
        timeout: timedelta | None = LOCK_TIMEOUT,
        priority: int = 0,
    ) -> AbstractAsyncContextManager[Lease]:
        """`acquire` as a scope: released at its end, and cancelled with `LeaseLost` if the lease is lost before."""
        return holding(self.acquire(resource, ttl=ttl, timeout=timeout, priority=priority))

    def _request(self, resource: str, ttl: timedelta, priority: int) -> LeaseRequest:
        return LeaseRequest(
            resource=resource,
            kind="lock",
            keys=self._engine.store.keys.lock(resource),
            id=new_request_id(),
            agent=AgentId(self._engine.process),
            process=self._engine.process,
            role=RoleName(""),
            ttl=ttl,
            priority=priority,
        )
