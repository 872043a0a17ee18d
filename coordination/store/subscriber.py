"""One subscription connection per process: grants are pushed here, nobody polls.

Sharded pub/sub (SSUBSCRIBE) works the same on a single server, under Sentinel and in a Cluster, and a script's SPUBLISH
returns the true number of receivers. A closed socket is not the only sign of a lost server: the connection is probed
every half second, and a probe that is not answered within a second costs it. After each reconnect every channel is
subscribed again and every listener is told, so that it repeats what it may have missed: a message is a wake-up, never
the only carrier of a fact.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

from coordination.errors import StoreError
from coordination.store import faults
from coordination.store.endpoint import CONNECT_TIMEOUT, Endpoint
from coordination.store.link import BACKOFF
from coordination.store.wire import ErrorReply, Wire, pack

logger = logging.getLogger("coordination.store")

PROBE_EVERY: Final = 0.5
PROBE_DEADLINE: Final = 1.0

Handler = Callable[[bytes], None]


class Subscriber:
    """The process's subscriptions. Handlers run in the event loop and must not block; one handler per channel."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._handlers: dict[bytes, Handler] = {}
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}
        self._awaited: set[bytes] = set()
        self._wire: Wire | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._heard = 0.0
        self.on_restored: list[Callable[[], None]] = []
        """Called after each reconnect, once every channel is subscribed again."""
        self.connected_since: float | None = None
        """Loop time of the last (re)connect, None while there is no connection."""

    async def subscribe(self, channel: str, handler: Handler) -> None:
        """Returns once the server confirmed the subscription.

        The first subscription opens the connection. Raises `StoreUnavailable` if there is no confirmation in time,
        `StoreRefused` if the server does not allow the channel.
        """
        name = channel.encode()
        self._handlers[name] = handler
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected(), name="baton-subscriber")
        confirmed = self._confirmations.get(name)
        if confirmed is None:
            confirmed = self._confirmations[name] = asyncio.get_running_loop().create_future()
            if self._wire is not None:
                self._wire.write(pack(("SSUBSCRIBE", name)))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.shield(confirmed)
        except TimeoutError as error:
            self._handlers.pop(name, None)
            self._confirmations.pop(name, None)
            raise faults.unavailable(error, self._endpoint.label) from error
        except StoreError:
            self._handlers.pop(name, None)
            raise

    async def unsubscribe(self, channel: str) -> None:
        """Forgets the channel; messages that are still on their way are dropped."""
        name = channel.encode()
        if self._handlers.pop(name, None) is not None and self._wire is not None:
            self._wire.write(pack(("SUNSUBSCRIBE", name)))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._handlers.clear()
        self._refuse(faults.unavailable("the store was closed", self._endpoint.label))

    async def _keep_connected(self) -> None:
        attempt, again = 0, False
        while True:
            try:
                self._wire = await Wire.open(self._endpoint, on_reply=self._on_reply, on_lost=self._on_lost)
            except StoreError as error:
                if not again:
                    logger.warning("no subscription at Redis %s: %s", self._endpoint.label, error)
                if not error.retryable:
                    self._refuse(error)
            else:
                attempt = 0
                await self._serve(self._wire, again=again)
                again = True
            await asyncio.sleep(BACKOFF[min(attempt, len(BACKOFF) - 1)])
            attempt += 1

    async def _serve(self, wire: Wire, *, again: bool) -> None:
        """Subscribes everything, then probes the connection until it is lost."""
        self._lost.clear()
        self.connected_since = self._heard = asyncio.get_running_loop().time()
        self._awaited = set(self._handlers) if again else set()
        for name in self._handlers:
            wire.write(pack(("SSUBSCRIBE", name)))
        if again and not self._awaited:
            self._tell_restored()
        try:
            while not self._lost.is_set():
                await self._probe(wire)
        finally:
            self._wire = self.connected_since = None
            await wire.close()

    async def _probe(self, wire: Wire) -> None:
        """Asks for a sign of life; silence costs the connection."""
        try:
            async with asyncio.timeout(PROBE_EVERY):
                await self._lost.wait()
        except TimeoutError:
            wire.write(pack(("PING",)))
            if asyncio.get_running_loop().time() - self._heard > PROBE_DEADLINE:
                wire.abort(TimeoutError(f"no sign of life for {PROBE_DEADLINE:.3g} s"))

    def _on_lost(self, error: BaseException) -> None:
        logger.warning("the subscription at Redis %s is lost: %s", self._endpoint.label, error)
        self._lost.set()

    def _on_reply(self, reply: Any) -> None:
        self._heard = asyncio.get_running_loop().time()
        if isinstance(reply, ErrorReply):
            self._refuse(faults.refused(reply, self._endpoint.label))
            return
        fields = cast("list[Any]", reply) if isinstance(reply, list) else [reply]
        if fields[0] == b"smessage":
            self._deliver(fields[1], fields[2])
        elif fields[0] == b"ssubscribe":
            self._confirm(fields[1])

    def _confirm(self, name: bytes) -> None:
        confirmed = self._confirmations.pop(name, None)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)
        if name in self._awaited:
            self._awaited.discard(name)
            if not self._awaited:
                self._tell_restored()

    def _refuse(self, error: StoreError) -> None:
        """Tells those who wait for a confirmation that none will come, instead of letting them time out."""
        for future in self._confirmations.values():
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._confirmations.clear()

    def _deliver(self, channel: bytes, message: bytes) -> None:
        handler = self._handlers.get(channel)
        if handler is None:
            return
        try:
            handler(message)
        except Exception:
            logger.exception("a handler failed on a message of %s", channel.decode(errors="replace"))

    def _tell_restored(self) -> None:
        for listener in self.on_restored:
            listener()
