"""The waits of one process for one resource.

However many tasks wait here, the store is asked at most once per TTL: one repeated request makes the server look at
the holder's deadline, and grants to whoever is first in its queue. All requests are repeated only when the queue is
known to have lost some.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from coordination.errors import LeaseTimeout, StoreUnavailable
from coordination.leases.request import Pending

if TYPE_CHECKING:
    from coordination.leases.engine import LeaseEngine
    from coordination.leases.lease import Lease

SLACK: Final = 0.005
"""Seconds behind a deadline at which the look is worth it: the server's clock must have passed it."""
RETRY: Final = 0.2


class WaitingRoom:
    """Pending requests of one process for one resource, and the one timer that looks after them."""

    def __init__(self, engine: LeaseEngine, lease_key: str) -> None:
        self._engine = engine
        self._key = lease_key
        self._waiting: dict[str, Pending] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looking = False

    def enter(self, pending: Pending) -> None:
        self._waiting[pending.request.id] = pending

    def leave(self, pending: Pending) -> None:
        self._waiting.pop(pending.request.id, None)
        if not self._waiting:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._engine.drop_room(self._key)

    async def wait_for(self, pending: Pending) -> Lease:
        """The granted lease. Raises `LeaseTimeout` at the end of the request's time, or what a repetition met."""
        loop = asyncio.get_running_loop()
        if pending.give_up is None:
            return await pending.granted
        try:
            async with asyncio.timeout_at(pending.give_up):
                return await pending.granted
        except TimeoutError:
            raise LeaseTimeout(pending.request.resource, loop.time() - pending.entered_at) from None

    def look_again_in(self, delay: float) -> None:
        """Sets the timer, or brings it forward."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(delay, 0.0) + SLACK
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._look)

    def check_complete(self, waiting_at_server: int) -> None:
        """Repeats all requests if the server's queue is shorter than this room: it has lost some of them."""
        if waiting_at_server < sum(1 for pending in self._waiting.values() if not pending.granted.done()):
            self._engine.keeper.spawn(self.repeat_all(), "baton-requeue")

    def _look(self) -> None:
        self._timer = None
        if self._waiting and not self._looking:
            self._looking = True
            self._engine.keeper.spawn(self._repeat_first(), "baton-look")

    async def _repeat_first(self) -> None:
        """Repeats the first request: the server looks at the holder, and grants to the first of all who wait."""
        try:
            await self._repeat(list(self._waiting.values())[:1])
        finally:
            self._looking = False

    async def repeat_all(self) -> None:
        await self._repeat(list(self._waiting.values()))

    async def _repeat(self, due: list[Pending]) -> None:
        for pending in due:
            if pending.granted.done() or pending.request.id not in self._waiting:
                continue
            try:
                again = await self._engine.ask_once(pending)
            except StoreUnavailable:
                again = RETRY
            except Exception as error:  # noqa: BLE001 - the waiter raises it
                if not pending.granted.done():
                    pending.granted.set_exception(error)
                continue
            finally:
                self._engine.take_back_if_over(pending)
            if self._waiting:
                self.look_again_in(again)
