"""Keeps leases alive: renewal at a third of the TTL, loss as soon as it is known, release.

A grant that was pushed is provisional until its first renewal, which goes out at once. Whoever passes a lease on looks
once more at the end of that window (`watch_grant`), so a waiter that died or stopped at the head of the queue costs the
others a quarter of a second, not a TTL.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from coordination.errors import StoreError, StoreRefused, StoreUnavailable
from coordination.ids import Fence
from coordination.leases.lease import Lease, LossReason
from coordination.leases.request import MICROSECONDS, LeaseRequest
from coordination.metrics import METRICS
from coordination.store.keys import LeaseKeys
from coordination.store.scripts import Script
from coordination.store.store import Store

logger = logging.getLogger("coordination.leases")

RENEW: Final = Script.load("lease/renew")
RELEASE: Final = Script.load("lease/release")
SETTLE: Final = Script.load("lease/settle")

RENEWALS_PER_TTL: Final = 3
RETRY: Final = 0.05
"""Seconds between attempts to renew while the store is away."""
REPLICATED_WITHIN: Final = 0.5
"""Seconds for replicas to confirm a grant, where that is asked for: they need a round trip."""
SEEN_FOR: Final = 50.0
"""Seconds for which the server must still know a fence that this process saw: less than the keys live."""


class Keeper:
    """The leases that this process holds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.held: dict[str, Lease] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- fences that this process has seen ----------------------------------------------------------------------------

    def saw(self, lease_key: str, fence: int) -> None:
        """Remembers the highest fence of a resource."""
        known, _ = self._seen.get(lease_key, (0, 0.0))
        if fence >= known:
            self._seen[lease_key] = (fence, asyncio.get_running_loop().time())

    def seen(self, lease_key: str) -> tuple[int, bool]:
        """The highest fence seen, and whether that is so recent that the server must know it too."""
        fence, at = self._seen.get(lease_key, (0, 0.0))
        return fence, fence > 0 and asyncio.get_running_loop().time() - at < SEEN_FOR

    def forget_resource(self, lease_key: str) -> None:
        self._seen.pop(lease_key, None)

    def holds(self, request: LeaseRequest) -> bool:
        """Whether the agent of this request holds what it asks for, under whichever request."""
        leases = (lease.request for lease in self.held.values())
        return any(each.keys.lease == request.keys.lease and each.agent == request.agent for each in leases)

    # -- holding ------------------------------------------------------------------------------------------------------

    def hold(self, request: LeaseRequest, fence: int, deadline: float, *, provisional: bool = False) -> Lease:
        """The lease of a grant. A provisional one is confirmed by a renewal that starts at once.

        So is a grant that is read when its time is over (this process was stopped), and one below a fence that was
        announced meanwhile: it is not held until the server has vouched for it again.
        """
        announced, _ = self.seen(request.keys.lease)
        provisional = provisional or asyncio.get_running_loop().time() >= deadline
        self.saw(request.keys.lease, fence)
        lease = self.held.get(request.id)
        if lease is None:
            strict = provisional or not request.keep
            lease = Lease(self, request, Fence(fence), deadline=deadline, strict=strict)
            self.held[request.id] = lease
            METRICS.granted(request)
        elif fence >= lease.fence:
            lease.fence, lease.deadline = Fence(fence), max(deadline, lease.deadline)
        if provisional:
            # In the next turn of the loop: the waiter is woken first.
            asyncio.get_running_loop().call_soon(self._start_renewal, lease)
        else:
            self._schedule_renewal(lease)
        if announced > lease.fence:
            self.doubt(lease, announced)
        return lease

    def _schedule_renewal(self, lease: Lease) -> None:
        loop, request = asyncio.get_running_loop(), lease.request
        if (timer := self._timers.get(request.id)) is not None:
            timer.cancel()
        delay = request.ttl_us / MICROSECONDS / RENEWALS_PER_TTL
        self._timers[request.id] = loop.call_later(delay, self._start_renewal, lease)

    def _start_renewal(self, lease: Lease) -> None:
        if lease.reason is None:
            self.spawn(self.renew(lease), "baton-renew")

    def renew_all(self) -> None:
        """Renews what is held, ahead of time: a server that lost a grant is told of it before others ask it."""
        for lease in list(self.held.values()):
            self._start_renewal(lease)

    async def renew(self, lease: Lease) -> None:
        """Renews until it succeeds, the lease is lost, or (unless policy `keep`) its deadline is over."""
        loop, request = asyncio.get_running_loop(), lease.request
        expiry = loop.call_at(lease.deadline, self._expire, lease)
        try:
            while lease.reason is None:
                sent_at, doubts = loop.time(), lease.doubts
                try:
                    reply = await self._store.run(RENEW, request.keys.keys, self._renewal_of(lease))
                except StoreError as error:
                    if isinstance(error, StoreRefused):
                        logger.error("a lease on %s cannot be renewed: %s", request.resource, error)
                    await asyncio.sleep(RETRY)
                    continue
                if self._read_renewal(lease, reply, sent_at, doubts):
                    return
        finally:
            expiry.cancel()

    async def replicate(self, lease: Lease, replicas: int) -> int:
        """Renews the lease, and waits for `replicas` to have that, and so the grant before it; how many have.

        0 also if the server does not vouch for the lease any more, or is away. Raises `StoreRefused`.
        """
        sent_at, doubts = asyncio.get_running_loop().time(), lease.doubts
        keys, own = lease.request.keys.keys, self._renewal_of(lease)
        try:
            reply, confirmed = await self._store.run_replicated(
                RENEW, keys, own, replicas=replicas, within=REPLICATED_WITHIN, patience=REPLICATED_WITHIN
            )
        except StoreUnavailable as error:
            logger.warning("no replica can be asked about a lease on %s: %s", lease.resource, error)
            return 0
        self._read_renewal(lease, reply, sent_at, doubts)
        return confirmed if lease.reason is None else 0

    def _read_renewal(self, lease: Lease, reply: Sequence[Any], sent_at: float, doubts: int) -> bool:
        """Takes in what the server says of a lease; False if it has to be asked again."""
        won, fence, _, holder = reply
        request = lease.request
        if not won:
            self.saw(request.keys.lease, fence)
            self.lose(lease, LossReason.SUPERSEDED if holder else LossReason.EXPIRED)
        elif self._ran_out(lease):
            # The server vouches for what was given up here meanwhile: nobody else would give it back.
            self.spawn(self._release_later(request), "baton-release")
        elif lease.reason is None:
            if asyncio.get_running_loop().time() >= sent_at + request.ttl_us / MICROSECONDS:
                return False  # Read too late to say anything: this process was stopped.
            self._confirm(lease, fence, sent_at, doubts)
            return not lease.doubtful  # Else the reply is older than the doubt.
        return True

    @staticmethod
    def _ran_out(lease: Lease) -> bool:
        """Whether the lease was given up here, by its own deadline, while the store was being asked."""
        return lease.reason is LossReason.EXPIRED

    def _renewal_of(self, lease: Lease) -> tuple[str | int, ...]:
        request = lease.request
        seen, _ = self.seen(request.keys.lease)
        own = (request.id, request.agent, request.process, request.role, request.ttl_us, lease.fence, seen)
        return (*request.options, *own)

    def _confirm(self, lease: Lease, fence: int, sent_at: float, doubts: int) -> None:
        request = lease.request
        self.saw(request.keys.lease, fence)
        lease.fence = Fence(fence)
        lease.deadline = sent_at + request.ttl_us / MICROSECONDS
        lease.strict = not request.keep
        lease.doubtful = lease.doubts != doubts
        self._schedule_renewal(lease)

    def _expire(self, lease: Lease) -> None:
        """The server has not vouched for the lease in time."""
        if lease.strict:
            self.lose(lease, LossReason.EXPIRED)

    def doubt(self, lease: Lease, fence: int) -> None:
        """Something speaks against the lease, e.g. a higher fence: it is not held until the server has explained it.

        Only the reply to a renewal that is sent after this counts.
        """
        self.saw(lease.request.keys.lease, fence)
        lease.doubts += 1
        if lease.reason is None and not lease.doubtful:
            lease.doubtful = True
            self.spawn(self.renew(lease), "baton-doubt")

    def lose(self, lease: Lease, reason: LossReason) -> None:
        """Ends the lease on this side: `held` is False and `lost` is set when this returns. Idempotent."""
        if lease.reason is not None:
            return
        lease.reason = reason
        self.held.pop(lease.request.id, None)
        if (timer := self._timers.pop(lease.request.id, None)) is not None:
            timer.cancel()
        METRICS.lost(lease.request, reason)
        lease.lost.set()
        for listener in lease.on_lost:
            listener(lease)

    async def release(self, lease: Lease) -> bool:
        if lease.reason is not None:
            return False
        self.lose(lease, LossReason.RELEASED)
        request = lease.request
        call = self._store.run(RELEASE, request.keys.keys, (*request.options, request.id))
        try:
            released, fence, window = await call
        except asyncio.CancelledError:
            # The command may still be on its way out, or waiting for the link: it is sent again by its own task.
            self.spawn(self._release_later(request), "baton-release")
            raise
        except StoreUnavailable:
            # A failover takes longer than a call may: whoever waits shall not wait for the TTL as well.
            self.spawn(self._release_later(request), "baton-release")
            return True
        except StoreError as error:
            logger.warning("a lease on %s was not given back and ends with its TTL: %s", request.resource, error)
            return True
        self.watch_grant(request.keys, request.options, fence, window)
        return bool(released)

    async def _release_later(self, request: LeaseRequest) -> None:
        args, patience = (*request.options, request.id), 2 * request.ttl.total_seconds()
        try:
            _, fence, window = await self._store.run(RELEASE, request.keys.keys, args, patience=patience)
        except StoreError as error:
            logger.warning("a lease on %s was not given back and ends with its TTL: %s", request.resource, error)
            return
        self.watch_grant(request.keys, request.options, fence, window)

    # -- the second look ----------------------------------------------------------------------------------------------

    def watch_grant(self, keys: LeaseKeys, options: tuple[str, str, str], fence: int, window_us: int) -> None:
        """Looks again at a pushed grant when its provisional window is over."""
        if fence:
            self.saw(keys.lease, fence)
            self.spawn(self._settle(keys, options, fence, window_us), "baton-settle")

    async def _settle(self, keys: LeaseKeys, options: tuple[str, str, str], fence: int, window_us: int) -> None:
        try:
            while fence:
                await asyncio.sleep(window_us / MICROSECONDS + 0.002)
                _, fence, window_us = await self._store.run(SETTLE, keys.keys, (*options, fence))
        except StoreError as error:
            logger.warning("a grant could not be followed up, its waiters look for themselves: %s", error)

    # -- tasks --------------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs background work that this keeper owns and ends."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background work %s failed", task.get_name(), exc_info=error)

    async def close(self, grace: float = 1.0) -> None:
        """Gives back what is held and ends all background work, within `grace` seconds."""
        for lease in list(self.held.values()):
            self.lose(lease, LossReason.CLOSED)
            self.spawn(self._release_later(lease.request), "baton-release")
        urgent = [task for task in self._tasks if task.get_name() in ("baton-release", "baton-cancel")]
        if urgent:
            await asyncio.wait(urgent, timeout=grace)
        rest = list(self._tasks)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
