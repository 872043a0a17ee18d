"""Delivers what lies in an outbox: conversations side by side, the items of each one after the other.

What the backend cannot take now is tried again, ever later; what it will never take is set aside, so that the items
behind it can go. Nobody waits for a drain except whoever closes it, and that for a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, Self

from coordination.metrics import METRICS
from coordination.persistence.errors import BackendError, BackendUnauthorized, OutboxError
from coordination.persistence.outbox.box import CLAIM, Claim, Failure, Outbox
from coordination.persistence.outbox.item import OutboxItem

logger = logging.getLogger(__name__)

Deliver = Callable[[OutboxItem], Awaitable[None]]
"""Returns when the backend has the item; raises `BackendError` otherwise."""

AT_ONCE: Final = 4
"""Conversations that one process delivers side by side."""
FIRST_RETRY: Final = timedelta(seconds=0.5)
LAST_RETRY: Final = timedelta(seconds=30)
"""Between attempts; doubled from the first to the last. A backend that comes back is asked within that time."""
FAULTS_BEFORE_POISON: Final = 25
"""Answers of 500, or unreadable ones, after which an item counts as the cause of them: ten minutes and more."""
OUTBOX_AWAY: Final = timedelta(seconds=1)


class Drain:
    """The drainer of one process. `kick` after each append; `close` waits for the rest, as long as it is told to."""

    def __init__(self, outbox: Outbox, deliver: Deliver, *, at_once: int = AT_ONCE) -> None:
        self._outbox, self._deliver = outbox, deliver
        self._at_once = at_once
        self._wake: asyncio.Queue[None] = asyncio.Queue(1)
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    def start(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._work(looks=number == 0), name=f"baton: drain the outbox ({number})")
            for number in range(self._at_once)
        ]
        return self

    def kick(self) -> None:
        """Something was appended: one task looks at once, and wakes the next if it finds something."""
        if self._wake.empty():
            self._wake.put_nowait(None)

    async def close(self, *, within: timedelta = timedelta(0)) -> None:
        """Delivers what is due for as long as told, then stops. What is left is delivered by the next drain."""
        self._closing = True
        self.kick()
        if self._tasks and within > timedelta(0):
            await asyncio.wait(self._tasks, timeout=within.total_seconds())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _work(self, *, looks: bool) -> None:
        """One of the tasks. The one that `looks` also asks by itself, for what other processes left."""
        worked = False
        while True:
            try:
                found = await self._outbox.claim()
                if not isinstance(found, timedelta):
                    self.kick()
                    await self._go_through(found)
                    worked = True
                elif self._closing:
                    self.kick()
                    return
                else:
                    # What it has just failed to deliver is due again at a moment that this task alone knows of.
                    await self._wait(found if looks or worked else None)
                    worked = False
            except OutboxError as fault:
                logger.warning("the outbox cannot be drained now: %s", fault)
                if self._closing:
                    self.kick()
                    return
                await asyncio.sleep(OUTBOX_AWAY.total_seconds())

    async def _wait(self, at_most: timedelta | None) -> None:
        try:
            async with asyncio.timeout(None if at_most is None else max(0.01, at_most.total_seconds())):
                await self._wake.get()
        except TimeoutError:
            pass

    async def _go_through(self, claim: Claim) -> None:
        """Delivers the items of one claim in order, up to the first that fails, and never beyond its time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CLAIM.total_seconds() / 2
        delivered, failure = 0, None
        try:
            for item in claim.items:
                if loop.time() >= until:
                    break
                try:
                    await self._deliver(item)
                except BackendError as error:
                    failure = self._judge(error, item, 1 if delivered else claim.attempts + 1)
                    break
                except Exception as error:
                    logger.exception("an item could not be sent", extra={"item": item.id, "kind": str(item.kind)})
                    failure = Failure(reason=f"it could not be sent: {error!r}", poison=True)
                    break
                delivered += 1
                METRICS.outbox(str(item.kind), "delivered")
        finally:
            await asyncio.shield(self._outbox.settle(claim, delivered=delivered, failure=failure))

    def _judge(self, error: BackendError, item: OutboxItem, attempts: int) -> Failure:
        poison = not error.retryable or (_is_answer(error) and attempts >= FAULTS_BEFORE_POISON)
        METRICS.outbox(str(item.kind), "set_aside" if poison else "retried")
        if poison:
            logger.error(
                "an item was set aside: the backend does not take it. `baton outbox show` lists it, and "
                "`baton outbox replay` sends it again",
                extra={"item": item.id, "kind": str(item.kind), "status": error.status},
            )
            return Failure(reason=str(error), poison=True)
        level = logging.ERROR if isinstance(error, BackendUnauthorized) else logging.WARNING
        logger.log(level, "the backend does not take what was saved yet: %s", error, extra={"attempts": attempts})
        return Failure(reason=str(error), poison=False, retry_in=_retry_in(attempts, error.retry_after))


def _is_answer(error: BackendError) -> bool:
    """Whether the backend, rather than something before it, may have stumbled over this very item."""
    return error.status is not None and error.status not in (401, 403, 408, 425, 429, 502, 503, 504)


def _retry_in(attempts: int, asked: timedelta | None) -> timedelta:
    """Doubling, with jitter, so that the workers of a fleet do not come back in one moment."""
    grown = min(LAST_RETRY, FIRST_RETRY * 2 ** min(attempts - 1, 10)) * random.uniform(0.75, 1.25)
    return max(grown, min(asked, 10 * LAST_RETRY)) if asked is not None else grown
