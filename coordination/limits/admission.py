"""Asks the store to admit requests; one engine serves all limits of a process.

One admission is one round trip, for all limits of the provider together. A request that is cancelled leaves no charge:
out of the queue it costs nothing, and what was admitted a moment before is given back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from coordination.errors import LimitError, LimitExceeded, StoreError, StoreUnavailable
from coordination.ids import ProcessId
from coordination.limits.buckets import Check, Rate
from coordination.limits.concurrency import Heartbeat
from coordination.limits.outage import Outage
from coordination.limits.queue import Queue
from coordination.limits.request import MICROSECONDS, Admission, LimitRequest
from coordination.limits.reservation import Reservation
from coordination.limits.units import Costs
from coordination.metrics import METRICS
from coordination.store.keys import LimitKeys
from coordination.store.scripts import Script
from coordination.store.store import Store
from coordination.store.wire import ErrorReply

logger = logging.getLogger("coordination.limits")

ADMIT: Final = Script.load("limits/admit")
SETTLE: Final = Script.load("limits/settle")
WITHDRAW: Final = Script.load("limits/withdraw")

ADMITTED, QUEUED, REFUSED = 1, 2, 3

PATIENCE: Final = 0.25
"""Seconds for which an admission waits for Redis to come back before the policy for its absence decides: a caller is on
the line."""
REFUND_WITHIN: Final = 300 * MICROSECONDS
"""How long a reservation is open: what is settled later gives nothing back."""


class Admissions:
    """All requests of one process. Not thread-safe: one event loop."""

    def __init__(self, store: Store, process: ProcessId) -> None:
        self.store = store
        self.process = process
        self._queues: dict[str, Queue] = {}
        self.outage = Outage(self)
        self._away_since: float | None = None
        self._charging: asyncio.Task[None] | None = None
        self._heartbeats: dict[str, Heartbeat] = {}
        self._keys: dict[str, LimitKeys] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        store.subscriber.on_restored.append(self._restored)

    def keys(self, provider: str) -> LimitKeys:
        """Made once: checking the name and building the keys takes longer than the rest of a request."""
        if provider not in self._keys:
            self._keys[provider] = self.store.keys.limits(provider)
        return self._keys[provider]

    def queue(self, request: LimitRequest) -> Queue:
        """This process's part of the queue for the request's provider."""
        base = request.keys.base
        if base not in self._queues:
            self._queues[base] = Queue(self, request.keys, request.shape.provider)
        return self._queues[base]

    def heartbeat(self, keys: LimitKeys) -> Heartbeat:
        """What this process holds of a provider."""
        if keys.base not in self._heartbeats:
            self._heartbeats[keys.base] = Heartbeat(self, keys)
        return self._heartbeats[keys.base]

    def let_go(self, reservation: Reservation) -> None:
        """Its slots are not renewed any more."""
        for heartbeat in self._heartbeats.values():
            heartbeat.drop(reservation)

    # -- admitting ----------------------------------------------------------------------------------------------------

    async def admit(self, request: LimitRequest) -> Admission:
        """Returns when the request may go.

        Raises `LimitExceeded` (it was not to wait), `LimitTimeout`, `StoreRefused`, and while Redis is away
        `LimitsUnavailable` where its policy is to let nothing pass. Cancelled, it leaves no charge.
        """
        while True:
            try:
                if self.outage.owes or self._charging is not None:
                    await self.charge_first()
                if self.store.connected and (request.give_up is None or request.give_up > request.entered_at):
                    await self.queue(request).listen()
                status, *fields = await self._ask(request)
                break
            except StoreUnavailable:
                alone = await self.outage.admit(request)
            if alone is not None:
                return alone
        self._away_since = None
        if status == ADMITTED:
            variant, moment, delay = fields
            admission = Admission(variant, moment)
            if delay > 0:
                await self.sleep_until_due(request, admission, delay)
            return admission
        if status == REFUSED:
            request.held_up_by = fields[0]
            METRICS.limit_refused(request.shape.provider, request.limit)
            raise LimitExceeded(request.shape.provider, request.limit, request.shape.tenant, fields[1] / MICROSECONDS)
        request.waited = True
        return await self.queue(request).wait(request, fields)

    async def _ask(self, request: LimitRequest) -> list[int]:
        """One round trip. Cancelled in it, the request is withdrawn as soon as its outcome is known."""
        try:
            reply = self._send(request)
        except StoreUnavailable:
            return await self._ask_again(request)
        # While the server works.
        self.heartbeat(request.keys).use()
        try:
            return await reply
        except asyncio.CancelledError:
            # The reply can have come in the same moment, and then nobody else is told of it.
            if not reply.cancelled() and reply.exception() is None:
                self._late_reply(request, reply.result())
            raise
        except (ErrorReply, StoreUnavailable):
            return await self._ask_again(request)

    def _send(self, request: LimitRequest) -> asyncio.Future[list[int]]:
        """Raises `StoreUnavailable` if the link is down."""
        now, shape, keys = asyncio.get_running_loop().time(), request.shape, request.keys.keys

        def late(reply: list[int]) -> None:
            self._late_reply(request, reply)

        if not shape.plain:
            return self.store.send(ADMIT, keys, request.admit_args(now), late=late)
        if not shape.packed:
            shape.packed.append(self.store.template(ADMIT, keys, request.admit_form()))
        data = shape.packed[0].filled(request.id, request.admit_numbers(now))
        return self.store.send_packed(keys[0], data, late=late)

    async def _ask_again(self, request: LimitRequest) -> list[int]:
        """The slow path: a script that the server has not seen, or a link that is down.

        Only the first requests of an outage wait for its end; later ones learn at once that it goes on.
        """
        now = asyncio.get_running_loop().time()
        self.heartbeat(request.keys).use()
        patience = PATIENCE
        if not self.store.connected:
            self._away_since = now if self._away_since is None else self._away_since
            patience = max(PATIENCE - (now - self._away_since), 0.0)
        try:
            return await self.store.run(ADMIT, request.keys.keys, request.admit_args(now), patience=patience)
        except asyncio.CancelledError:
            self.withdraw(request)
            raise

    async def sleep_until_due(self, request: LimitRequest, admission: Admission, delay: int) -> None:
        """An admission may be told up to a quarter of a second before its moment."""
        request.waited = True
        try:
            await asyncio.sleep(delay / MICROSECONDS)
        except asyncio.CancelledError:
            self.give_back(request, admission)
            raise

    def _late_reply(self, request: LimitRequest, reply: list[int]) -> None:
        """The request was cancelled on its way: nothing of it may stay."""
        status, *fields = reply
        if status == ADMITTED:
            self.give_back(request, Admission(*fields[:2]))
        elif status == QUEUED:
            self.withdraw(request)

    # -- giving back --------------------------------------------------------------------------------------------------

    def withdraw(self, request: LimitRequest) -> None:
        """Takes a request back in the background, whether it is queued or was admitted meanwhile."""
        self.spawn(self._change(WITHDRAW, request, request.withdraw_args()), "baton-limit-withdraw")

    def give_back(self, request: LimitRequest, admission: Admission) -> None:
        """Refunds an admission in the background."""
        nothing: Costs = dict.fromkeys(request.costs, 0)
        self.spawn(self.settle(request, admission, nothing), "baton-limit-refund")

    async def settle(self, request: LimitRequest, admission: Admission, used: Costs) -> None:
        """Corrects an admission by what was used, and frees its slots. Nothing is sent if there is nothing to correct.

        Never repeated after a lost reply, so that nothing is given back twice: an outage costs the refund.
        """
        if admission.variant == 0:
            return
        self.heartbeat(request.keys).counts.settled(request.shape.tenant, request, used)
        changes = _differences(request.shape.variant(admission.variant), request, used)
        if changes:
            head = [request.keys.base, self.process, admission.moment, REFUND_WITHIN]
            await self._change(SETTLE, request, [*head, *changes])

    async def _change(self, script: Script, request: LimitRequest, args: list[str | int]) -> None:
        try:
            left = await self.store.run(script, request.keys.keys, args, patience=0)
        except StoreError as error:
            logger.warning("a reservation at %s was not corrected: %s", request.shape.provider, error)
            return
        self.queue(request).told(*left)

    def refuse(self, error: Callable[[LimitRequest], LimitError | None]) -> None:
        """Ends the waits for which there is an error."""
        for queue in self._queues.values():
            queue.refuse(error)

    # -- tasks --------------------------------------------------------------------------------------------------------

    def _restored(self) -> None:
        """After a lost subscription an admission may have been missed: whoever waits asks again, one by one."""
        self.spawn(self._ask_all_again(), "baton-limit-return")

    async def _ask_all_again(self) -> None:
        await self.charge_first()
        for queue in self._queues.values():
            queue.repeat_all()

    async def charge_first(self) -> None:
        """Charges what this process admitted alone before it has anything else admitted: the first moments after an
        outage do not come on top of it. Does nothing while Redis is away.
        """
        if self._charging is None and self.store.connected and self.outage.owes:
            self._charging = self.spawn(self._charge_all(), "baton-limit-charge")
        if self._charging is not None:
            await asyncio.shield(self._charging)

    async def _charge_all(self) -> None:
        try:
            for keys, buckets in self.outage.owed():
                await self._charge(keys, buckets)
        finally:
            self._charging = None

    async def _charge(self, keys: tuple[str, ...], buckets: dict[str, int]) -> None:
        base = keys[0].removesuffix("provider")
        changes = [value for field, interval in buckets.items() for value in ("r", field, interval)]
        try:
            await self.store.run(SETTLE, keys, (base, self.process, 0, 0, *changes), patience=1.0)
        except StoreError as error:
            logger.warning("what was admitted while Redis was away is not charged: %s", error)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs background work that this engine owns and ends."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("background work %s failed", task.get_name(), exc_info=error)

    async def close(self, grace: float = 1.0) -> None:
        """Lets what is being given back arrive, within `grace` seconds, and ends all background work."""
        for heartbeat in self._heartbeats.values():
            await heartbeat.close()
        for queue in self._queues.values():
            queue.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        rest = list(self._tasks)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def _differences(checks: tuple[Check, ...], request: LimitRequest, used: Costs) -> list[str | int]:
    changes: list[str | int] = []
    for check in checks:
        if not isinstance(check, Rate):
            changes += ("s", check.set, request.slot)
        elif difference := check.interval(used[check.unit]) - check.interval(request.costs[check.unit]):
            changes += ("r", check.field, difference)
    return changes
