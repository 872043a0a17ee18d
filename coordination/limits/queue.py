"""The waits of one process for one provider.

The store keeps the queue. One process of the fleet pumps: it asks the store, when something can pass, to admit all who
pass within the next quarter of a second; their processes are told by a push and wait out the rest themselves. Whoever
waits and hears nothing looks, a second after the pump was due, whether it still runs. Nobody polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from coordination.errors import LimitError, LimitTimeout, StoreError, StoreUnavailable
from coordination.limits.request import MICROSECONDS, Admission, LimitRequest
from coordination.metrics import METRICS
from coordination.store.keys import LimitKeys
from coordination.store.scripts import Script

if TYPE_CHECKING:
    from coordination.limits.admission import Admissions

PUMP: Final = Script.load("limits/pump")

PLACE_EVERY: Final = 2.0
"""Seconds between looks at the place of a request that is told it."""
AWAY_AFTER: Final = 0.2
"""Seconds between looks, in this process alone, whether the store is connected while somebody waits."""
SILENCE: Final = 1.0
"""Seconds after which a process that waits looks whether the pump still runs."""


class Queue:
    """Pending requests of one process for one provider, and the timers that look after them."""

    def __init__(self, engine: Admissions, keys: LimitKeys, provider: str) -> None:
        self._engine = engine
        self._keys = keys
        self._provider = provider
        self._waiting: dict[str, LimitRequest] = {}
        self._listening: asyncio.Task[None] | None = None
        self._pump: asyncio.TimerHandle | None = None
        self._backstop: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._looking = False
        self.closed = False

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Subscribes this process's channel, once. Raises `StoreUnavailable` if that fails."""
        if self._listening is None:
            channel = self._keys.channel(self._engine.process)
            work = self._engine.store.subscriber.subscribe(channel, self._on_message)
            self._listening = asyncio.create_task(work, name="baton-limit-listen")
        if self._listening.done() and self._listening.exception() is None:
            return
        task = self._listening
        try:
            await asyncio.shield(task)
        except StoreError:
            if self._listening is task:
                self._listening = None
            raise

    async def wait(self, request: LimitRequest, queued: list[int]) -> Admission:
        """Returns when the request may go. Raises `LimitTimeout`; cancelled or timed out, nothing of it is left."""
        loop = asyncio.get_running_loop()
        request.admitted = loop.create_future()
        self._waiting[request.id] = request
        if self._watch is None:
            self._watch = loop.call_later(AWAY_AFTER, self._watch_store)
        self._queued(request, *queued)
        try:
            async with asyncio.timeout_at(request.give_up):
                return await request.admitted
        except TimeoutError:
            self._withdraw(request)
            waited = loop.time() - request.entered_at
            METRICS.limit_refused(self._provider, request.limit)
            raise LimitTimeout(self._provider, request.limit, request.shape.tenant, waited) from None
        except BaseException:
            self._withdraw(request)
            raise
        finally:
            METRICS.limit_waited(self._provider, loop.time() - request.entered_at)
            del self._waiting[request.id]
            self._tidy()

    def _withdraw(self, request: LimitRequest) -> None:
        admitted = request.admitted
        if admitted is not None and admitted.done() and not admitted.cancelled() and admitted.exception() is None:
            self._engine.give_back(request, admitted.result())
        else:
            self._engine.withdraw(request)

    def _queued(self, request: LimitRequest, due: int, mine: int, place: int, worst: int, _: int) -> None:
        request.held_up_by = worst
        if request.on_place is not None:
            if place != request.place:
                request.place = place
                request.on_place(place)
            asyncio.get_running_loop().call_later(PLACE_EVERY, self._ask_place, request)
        self.told(1, due, mine)

    def _ask_place(self, request: LimitRequest) -> None:
        if request.id in self._waiting and not self.closed:
            self._engine.spawn(self._repeat([request]), "baton-limit-place")

    def _tidy(self) -> None:
        if not self._waiting and self._backstop is not None:
            self._backstop.cancel()
            self._backstop = None

    # -- the pump -----------------------------------------------------------------------------------------------------

    def told(self, waiting: int, due: int, mine: int) -> None:
        """What a script said of the queue: how many wait, in how many microseconds the pump is due, if it is ours."""
        if not waiting or self.closed:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + due / MICROSECONDS
        if mine:
            if self._pump is not None:
                if self._pump.when() <= at:
                    return
                self._pump.cancel()
            self._pump = loop.call_at(at, self._pump_now)
        elif self._waiting:
            self._look_at(at + SILENCE)

    def _look_at(self, at: float) -> None:
        if self._backstop is not None:
            self._backstop.cancel()
        self._backstop = asyncio.get_running_loop().call_at(at, self._pump_now)

    def _pump_now(self) -> None:
        self._pump = None
        if not self._looking and not self.closed:
            self._looking = True
            self._engine.spawn(self._look(), "baton-limit-pump")

    async def _look(self) -> None:
        try:
            await self._engine.charge_first()
            left = await self._engine.store.run(
                PUMP, self._keys.keys, (self._keys.base, self._engine.process), patience=0
            )
        except StoreUnavailable:
            left = (len(self._waiting), int(SILENCE * MICROSECONDS), 0)
            if not self._engine.store.connected:
                self.decide_alone()
        finally:
            self._looking = False
        if not left[0] and self._waiting:
            # The server has lost its queue, or all of it was admitted and the push is on its way: ask again.
            self.repeat_all()
        self.told(*left)

    # -- messages -----------------------------------------------------------------------------------------------------

    def _on_message(self, message: bytes) -> None:
        _, rid, variant, moment, delay = message.decode().split(" ")
        request = self._waiting.get(rid)
        if request is None or request.admitted is None or request.admitted.done():
            return
        loop = asyncio.get_running_loop()
        if self._backstop is not None:
            # The pump runs.
            self._look_at(loop.time() + SILENCE)
        admission = Admission(int(variant), int(moment))
        self._resolve(request, admission, int(delay))

    def _resolve(self, request: LimitRequest, admission: Admission, delay: int) -> None:
        if delay > 0:
            asyncio.get_running_loop().call_later(delay / MICROSECONDS, _set, request, admission)
        else:
            _set(request, admission)

    def repeat_all(self) -> None:
        """Sends every request again, in the order in which they came: the store knows those that it has."""
        if self._waiting:
            self._engine.spawn(self._repeat(list(self._waiting.values())), "baton-limit-requeue")

    async def _repeat(self, due: list[LimitRequest]) -> None:
        from coordination.limits.admission import ADMIT, ADMITTED

        for request in due:
            if request.id not in self._waiting or request.admitted is None or request.admitted.done():
                continue
            await self._engine.charge_first()
            args = request.admit_args(asyncio.get_running_loop().time())
            try:
                status, *fields = await self._engine.store.run(ADMIT, self._keys.keys, args, patience=0)
            except StoreUnavailable:
                self._look_at(asyncio.get_running_loop().time() + SILENCE)
                return
            if status == ADMITTED:
                self._resolve(request, Admission(*fields[:2]), fields[2])
            else:
                self._queued(request, *fields)

    def _watch_store(self, before: bool = True) -> None:
        """Looks at the state of the connection, which costs nothing: away twice in a row, it is away."""
        self._watch = None
        if not self._waiting or self.closed:
            return
        connected = self._engine.store.connected
        if not connected and not before:
            self.decide_alone()
        self._watch = asyncio.get_running_loop().call_later(AWAY_AFTER, self._watch_store, connected)

    def decide_alone(self) -> None:
        """The store is away: each request that waits goes by the policies of its limits."""
        for request in list(self._waiting.values()):
            if request.admitted is not None and not request.admitted.done() and not request.alone:
                request.alone = True
                self._engine.spawn(self._decide(request), "baton-limit-alone")

    async def _decide(self, request: LimitRequest) -> None:
        try:
            admission = await self._engine.outage.admit(request)
            if admission is not None:
                _set(request, admission)
        except LimitError as error:
            if request.admitted is not None and not request.admitted.done():
                request.admitted.set_exception(error)
        finally:
            request.alone = False

    def refuse(self, error: Callable[[LimitRequest], LimitError | None]) -> None:
        """Ends the waits for which there is an error, and takes them out of the queue."""
        for request in list(self._waiting.values()):
            if (why := error(request)) is not None and request.admitted is not None and not request.admitted.done():
                request.admitted.set_exception(why)

    def close(self) -> None:
        """Stops the timers and the subscription's task."""
        self.closed = True
        for timer in (self._pump, self._backstop, self._watch):
            if timer is not None:
                timer.cancel()
        if self._listening is not None:
            self._listening.cancel()


def _set(request: LimitRequest, admission: Admission) -> None:
    if request.admitted is not None and not request.admitted.done():
        request.admitted.set_result(admission)
