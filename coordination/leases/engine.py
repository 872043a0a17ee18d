"""Asks for leases, waits for them and hands them to the keeper: one engine serves all leases of a process.

It keeps invariants 4 and 5 (docs/guarantees.md): a cancelled request leaves nothing behind, a repeated one returns the
same grant. A grant that is pushed carries all that a lease needs, so a waiter needs no second round trip.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

from coordination.errors import GrantNotReplicated, LeaseTimeout, RequestCancelled, StoreError, StoreUnavailable
from coordination.ids import AgentId, ProcessId
from coordination.leases.keeper import REPLICATED_WITHIN, Keeper
from coordination.leases.lease import Lease, LossReason
from coordination.leases.request import MICROSECONDS, UNBOUNDED, LeaseRequest, Pending
from coordination.leases.waiting import WaitingRoom
from coordination.metrics import METRICS
from coordination.ports import Silenced
from coordination.store.keys import LeaseKeys
from coordination.store.scripts import Script
from coordination.store.store import Store

logger = logging.getLogger("coordination.leases")

REQUEST: Final = Script.load("lease/request")
CANCEL: Final = Script.load("lease/cancel")
SILENCED: Final = Script.load("lease/silenced")

GRANTED, QUEUED, TAKEN, CANCELLED, SUSPECT = 1, 2, 3, 4, 5

SETTLING: Final = 1.0
"""Seconds after a (re)connect during which this process condemns nobody: a holder that was cut off by the same outage
gets that long to renew."""
UNREACHABLE_RETRY: Final = 0.25
"""Seconds between attempts to silence a holder while the media server does not answer."""


class LeaseEngine:
    """All pending requests of one process, and its keeper. Not thread-safe: one event loop."""

    def __init__(self, store: Store, process: ProcessId, *, replicas: int = 0) -> None:
        """A grant is used once so many `replicas` have confirmed it; 0 does not ask them."""
        self.store = store
        self._replicas = replicas
        self.process = process
        self.keeper = Keeper(store)
        self._rooms: dict[str, WaitingRoom] = {}
        self._pending: dict[str, Pending] = {}
        self._early: dict[str, tuple[int, int, int, int] | None] = {}
        self._listening: dict[str, asyncio.Task[None]] = {}
        store.subscriber.on_restored.append(self._repeat_all)

    # -- asking -------------------------------------------------------------------------------------------------------

    async def acquire(self, request: LeaseRequest, timeout: timedelta | None) -> Lease:
        """Waits for the lease. Raises `LeaseTimeout` after `timeout`; None waits without a bound.

        Cancelled or timed out, nothing of the request stays: no lease, no queue entry. Raises `GrantNotReplicated`
        where replicas have to confirm a grant and did not; it was given back then.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        pending = Pending(request=request, granted=loop.create_future(), entered_at=began)
        if timeout is not None:
            pending.give_up = began + max(0.0, timeout.total_seconds())
        self._pending[request.id] = pending
        try:
            lease = await self._first_reply(pending)
            if lease is None:
                lease = await self._wait(pending)
            await self._replicate(lease)
        except GrantNotReplicated:
            raise
        except BaseException:
            self._withdraw(request)
            raise
        finally:
            del self._pending[request.id]
        METRICS.waited(request, loop.time() - began)
        return lease

    async def _first_reply(self, pending: Pending) -> Lease | None:
        """Sends the request until the store answers it; the reply may be the grant."""
        while True:
            channel = pending.request.keys.channel
            try:
                if channel not in self._listening or not self._listening[channel].done():
                    await self.listen(pending.request.keys)
                again = await self.ask_once(pending)
            except StoreUnavailable:
                if pending.give_up is None or asyncio.get_running_loop().time() < pending.give_up:
                    continue
                raise
            if pending.granted.done():
                return pending.granted.result()
            room = self._rooms.get(pending.request.keys.lease)
            if room is None:
                room = self._rooms[pending.request.keys.lease] = WaitingRoom(self, pending.request.keys.lease)
            room.enter(pending)
            room.look_again_in(again)
            return None

    async def _wait(self, pending: Pending) -> Lease:
        room = self._rooms[pending.request.keys.lease]
        try:
            return await room.wait_for(pending)
        finally:
            room.leave(pending)

    async def attempt(self, request: LeaseRequest) -> Lease | None:
        """Asks once: the lease, or None if it is taken. An expired holder is silenced on the way, if it must be."""
        loop = asyncio.get_running_loop()
        pending = Pending(request=request, granted=loop.create_future(), entered_at=loop.time())
        self._pending[request.id] = pending
        try:
            await self.listen(request.keys)
            await self.ask_once(pending, wait=False)
            return await self._replicate(pending.granted.result()) if pending.granted.done() else None
        except GrantNotReplicated:
            raise
        except BaseException:
            self._withdraw(request)
            raise
        finally:
            del self._pending[request.id]

    async def expect(self, request: LeaseRequest, timeout: timedelta | None) -> Lease:
        """Waits for a grant that somebody else moves to this request (a handoff, an operator), without queueing.

        Raises `LeaseTimeout`. Cancelled or timed out, a grant that comes all the same is passed on.
        """
        loop = asyncio.get_running_loop()
        pending = Pending(request=request, granted=loop.create_future(), entered_at=loop.time())
        self.anticipate(request.id)
        try:
            await self.listen(request.keys)
            pending.sent_at = loop.time()
            pending.server_time = await self.server_time(request.keys)
            self._pending[request.id] = pending
            if (early := self._early.pop(request.id)) is not None:
                self._on_grant(request.id, *early)
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                lease = await asyncio.shield(pending.granted)
            return await self._replicate(lease)
        except GrantNotReplicated:
            raise
        except TimeoutError:
            self._withdraw(request)
            raise LeaseTimeout(request.resource, loop.time() - pending.entered_at) from None
        except BaseException:
            self._withdraw(request)
            raise
        finally:
            self._early.pop(request.id, None)
            self._pending.pop(request.id, None)

    async def _replicate(self, lease: Lease) -> Lease:
        """The lease, once enough replicas know of it. Raises `GrantNotReplicated`; it was given back then."""
        if self._replicas and (confirmed := await self.keeper.replicate(lease, self._replicas)) < self._replicas:
            await lease.release()
            raise GrantNotReplicated(lease.resource, self._replicas, confirmed, REPLICATED_WITHIN)
        return lease

    def anticipate(self, request_id: str) -> None:
        """Keeps a grant that is pushed to this request before `expect` is called for it."""
        self._early.setdefault(request_id, None)

    async def ask_once(self, pending: Pending, *, wait: bool = True) -> float:
        """One round trip, and one more for each suspect holder that is silenced on its behalf.

        Resolves `pending` if the reply grants; returns the seconds after which another look is worth it.
        """
        while True:
            status, wait_for = await self._send(pending, wait=wait)
            if status != SUSPECT or pending.granted.done():
                return wait_for
            if not await self._silence_suspect(pending):
                if not wait:
                    return UNREACHABLE_RETRY
                await asyncio.sleep(UNREACHABLE_RETRY)

    async def _send(self, pending: Pending, *, wait: bool) -> tuple[int, float]:
        request, loop = pending.request, asyncio.get_running_loop()
        sent_at = loop.time()
        seen, recent = self.keeper.seen(request.keys.lease)
        life = UNBOUNDED if pending.give_up is None else max(0.0, pending.give_up - sent_at) + 0.05
        who = (request.id, request.agent, request.process, request.role, request.ttl_us, request.priority)
        how = ("wait" if wait else "try", seen, int(recent), int(life * MICROSECONDS), request.expiry)
        args = (*request.options, *who, *how, int(self.settled(request.keys)))
        status, fence, again, now, holder, holder_ttl, waiting = await self.store.run(REQUEST, request.keys.keys, args)
        pending.sent_at, pending.server_time = sent_at, now
        self.keeper.saw(request.keys.lease, fence)
        if status == GRANTED:
            if not pending.granted.done():
                deadline = sent_at + request.ttl_us / MICROSECONDS
                pending.granted.set_result(self.keeper.hold(request, fence, deadline))
            return status, 0.0
        if status == CANCELLED:
            raise RequestCancelled(
                f"The request {request.id} for {request.resource} was cancelled before: use a new id."
            )
        if status == SUSPECT:
            pending.suspect = (AgentId(holder.decode()), fence)
            pending.suspect_shut_at = loop.time() + again / MICROSECONDS
        elif wait and (room := self._rooms.get(request.keys.lease)) is not None:
            room.check_complete(waiting)
        return status, _look_again(again / MICROSECONDS, holder_ttl / MICROSECONDS)

    def take_back_if_over(self, pending: Pending) -> None:
        """After a repetition: what was granted by push meanwhile, and given back, must not be granted again.

        The release goes out as soon as the grant is known, and a repetition that waited for the link comes behind it.
        """
        request = pending.request
        if pending.granted.done() and request.id not in self.keeper.held:
            self.keeper.spawn(self._cancel(request), "baton-cancel")

    async def _silence_suspect(self, pending: Pending) -> bool:
        """Makes the media server silence an expired holder, then frees its lease. False if it gave no answer."""
        request = pending.request
        if request.silencer is None or pending.suspect is None:
            return False
        agent, fence = pending.suspect
        if agent == request.agent and not self.keeper.holds(request):
            # What is left of its own last lease: it is silent already, and must not remove itself from its call.
            await self.free(request.keys, request.options, fence, "own")
            return True
        outcome = await request.silencer.silence(agent)
        if not outcome.confirmed and not request.keep and asyncio.get_running_loop().time() >= pending.suspect_shut_at:
            outcome = Silenced.SELF
        METRICS.silenced(outcome)
        if not outcome.confirmed:
            return False
        await self.free(request.keys, request.options, fence, outcome)
        return True

    async def free(self, keys: LeaseKeys, options: tuple[str, str, str], fence: int, how: str) -> None:
        """Frees the lease of a condemned holder that is silent (`how`), and follows the grant that this leads to."""
        _, granted, window = await self.store.run(SILENCED, keys.keys, (*options, fence, how))
        self.keeper.watch_grant(keys, options, granted, window)

    def settled(self, keys: LeaseKeys, *, after: float = SETTLING) -> bool:
        """Whether the subscription has been up for long enough that a silent holder is no effect of the same outage."""
        since = self.store.subscriber.since(keys.channel)
        return since is not None and asyncio.get_running_loop().time() - since >= after

    async def server_time(self, keys: LeaseKeys) -> int:
        """The clock of the server that holds the keys, in microseconds."""
        return await self.store.time(keys.lease)

    def drop_room(self, lease_key: str) -> None:
        self._rooms.pop(lease_key, None)

    # -- withdrawing --------------------------------------------------------------------------------------------------

    def _withdraw(self, request: LeaseRequest) -> None:
        """Takes a request back in the background; what it was granted meanwhile is passed on."""
        lease = self.keeper.held.get(request.id)
        if lease is not None:
            self.keeper.lose(lease, LossReason.RELEASED)
        self.keeper.spawn(self._cancel(request), "baton-cancel")

    async def _cancel(self, request: LeaseRequest) -> None:
        try:
            _, fence, window = await self.store.run(
                CANCEL, request.keys.keys, (*request.options, request.id), patience=request.ttl.total_seconds() * 2
            )
        except StoreError as error:
            logger.warning("a cancelled request for %s ends with its time: %s", request.resource, error)
            return
        self.keeper.watch_grant(request.keys, request.options, fence, window)

    # -- messages -----------------------------------------------------------------------------------------------------

    async def listen(self, keys: LeaseKeys) -> None:
        """Subscribes this process's channel for the keys' slot, once. Raises `StoreUnavailable` if that fails."""
        channel = keys.channel
        task = self._listening.get(channel)
        if task is None:
            work = self.store.subscriber.subscribe(f"{channel}{self.process}", self._on_message)
            task = self._listening[channel] = asyncio.create_task(work, name="baton-listen")
        try:
            await asyncio.shield(task)
        except Exception:
            if self._listening.get(channel) is task:
                del self._listening[channel]
            raise

    async def unlisten(self, keys: LeaseKeys) -> None:
        if self._listening.pop(keys.channel, None) is not None:
            await self.store.subscriber.unsubscribe(f"{keys.channel}{self.process}")

    def _on_message(self, message: bytes) -> None:
        kind, *fields = message.decode().split(" ")
        if kind == "grant":
            fence, granted_at, ttl_us, window_us = (int(field) for field in fields[1:5])
            self._on_grant(fields[0], fence, granted_at, ttl_us, window_us)
        elif kind == "lost":
            lease = self.keeper.held.get(fields[0])
            if lease is not None and lease.fence <= int(fields[1]):
                self.keeper.lose(lease, LossReason(fields[2]))

    def _on_grant(self, request_id: str, fence: int, granted_at: int, ttl_us: int, window_us: int) -> None:
        pending = self._pending.get(request_id)
        if pending is None and request_id in self._early:
            self._early[request_id] = (fence, granted_at, ttl_us, window_us)
        if pending is None or pending.granted.done():
            return
        loop = asyncio.get_running_loop()
        # The grant is dated by the server's clock, measured from this request's own last sending: conservative, since
        # the server answered after that. A clock that jumped in between must not lengthen the lease.
        since_sent = (granted_at - pending.server_time) / MICROSECONDS
        if since_sent < 0:
            # The clock stepped back: the date says nothing, so the lease counts from its first renewal on.
            self.keeper.spawn(self._date_by_renewal(pending, fence, window_us), "baton-renew")
            return
        granted = min(pending.sent_at + since_sent, loop.time())
        lease = self.keeper.hold(pending.request, fence, granted + window_us / MICROSECONDS, provisional=True)
        pending.granted.set_result(lease)

    async def _date_by_renewal(self, pending: Pending, fence: int, window_us: int) -> None:
        window = window_us / MICROSECONDS
        lease = self.keeper.hold(pending.request, fence, asyncio.get_running_loop().time() + window)
        lease.doubtful = True
        await self.keeper.renew(lease)
        if not pending.granted.done():
            pending.granted.set_result(lease)

    def _repeat_all(self) -> None:
        """After a lost subscription a grant may have been missed: every pending request is sent again.

        The server may be another one, or have lost what it knew: leases that are held are claimed there first.
        """
        self.keeper.renew_all()
        for room in list(self._rooms.values()):
            self.keeper.spawn(room.repeat_all(), "baton-requeue")

    async def close(self) -> None:
        """Gives back what is held and ends all background work."""
        await self.keeper.close()
        for task in self._listening.values():
            task.cancel()
        await asyncio.gather(*self._listening.values(), return_exceptions=True)
        self._listening.clear()


def _look_again(remaining: float, holder_ttl: float) -> float:
    """When another look is worth it: not before the holder's deadline, and once per TTL while the holder renews.

    A holder that renews at a third of its TTL always has two thirds left; one that has less is late.
    """
    return max(remaining, holder_ttl) if remaining > 0.6 * holder_ttl else remaining
