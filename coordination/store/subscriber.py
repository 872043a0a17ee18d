"""The subscription connection: grants are pushed here, nobody polls.

Sharded pub/sub (SSUBSCRIBE) works the same on a single server, under Sentinel and in a Cluster, and a script's SPUBLISH
returns the true number of receivers. A closed socket is not the only sign of a lost server: the connection is probed
every half second, and a probe that is not answered within a second costs it. After each reconnect every channel is
subscribed again and every listener is told, so that it repeats what it may have missed: a message is a wake-up, never
the only carrier of a fact.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from coordination.errors import StoreError
from coordination.store import faults
from coordination.store.endpoint import CONNECT_TIMEOUT, Locate
from coordination.store.link import BACKOFF
from coordination.store.wire import ErrorReply, Wire, pack

logger = logging.getLogger("coordination.store")

PROBE_EVERY: Final = 0.5
PROBE_DEADLINE: Final = 1.0

Handler = Callable[[bytes], None]


class Subscriptions(Protocol):
    """The process's subscriptions, on however many servers. One handler per channel; handlers must not block."""

    on_restored: list[Callable[[], None]]
    """Called after each reconnect, once every channel is subscribed again."""

    @property
    def connected_since(self) -> float | None:
        """Loop time of the last (re)connect, None while a connection is missing."""
        ...

    def since(self, channel: str) -> float | None:
        """`connected_since` of the connection that carries the channel."""
        ...

    async def subscribe(self, channel: str, handler: Handler) -> None:
        """Returns once the server confirmed the subscription.

        The first subscription opens the connection. Raises `StoreUnavailable` if there is no confirmation in time,
        `StoreRefused` if the server does not allow the channel.
        """
        ...

    async def unsubscribe(self, channel: str) -> None:
        """Forgets the channel; messages that are still on their way are dropped."""
        ...

    async def close(self) -> None: ...


class Subscriber:
    """The subscriptions at one primary. Handlers run in the event loop."""

    def __init__(self, locate: Locate, label: str, *, verb: str = "SSUBSCRIBE") -> None:
        """`verb` is SUBSCRIBE for a Sentinel, which knows no sharded channels."""
        self.label = label
        self.on_restored: list[Callable[[], None]] = []
        self.connected_since: float | None = None
        self.on_trouble: Callable[[], None] | None = None
        """Called when the connection is lost, and after each failed attempt to connect."""
        self.on_misplaced: Callable[[bytes, Exception | None], None] | None = None
        """Called with a channel that the server gave up, or answers with an error for (a Cluster's MOVED)."""
        self._locate = locate
        self._verb, self._undo = verb, verb.replace("SUB", "UNSUB")
        self._handlers: dict[bytes, Handler] = {}
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}
        self._asked: deque[tuple[str, bytes]] = deque()
        self._awaited: set[bytes] = set()
        self._wire: Wire | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._heard = 0.0

    def since(self, channel: str) -> float | None:
        return self.connected_since

    async def subscribe(self, channel: str, handler: Handler) -> None:
        name = channel.encode()
        confirmed = self.add(name, handler)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.shield(confirmed)
        except TimeoutError as error:
            self._handlers.pop(name, None)
            self._confirmations.pop(name, None)
            raise faults.unavailable(error, self.label) from error
        except StoreError:
            self._handlers.pop(name, None)
            raise

    def add(self, name: bytes, handler: Handler) -> asyncio.Future[None]:
        """Subscribes the channel, now or as soon as there is a connection; the future is the confirmation."""
        self._handlers[name] = handler
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected(), name="baton-subscriber")
        confirmed = self._confirmations.get(name)
        if confirmed is None:
            confirmed = self._confirmations[name] = asyncio.get_running_loop().create_future()
            if self._wire is not None:
                self._send(self._wire, self._verb, name)
        return confirmed

    async def unsubscribe(self, channel: str) -> None:
        self.remove(channel.encode())

    def remove(self, name: bytes) -> None:
        """Forgets the channel."""
        self._confirmations.pop(name, None)
        if self._handlers.pop(name, None) is not None and self._wire is not None:
            self._send(self._wire, self._undo, name)

    def renew(self, why: str) -> None:
        """Leaves the server, or an attempt to reach it that may hang, and subscribes where the primary is now."""
        if self._wire is not None:
            self._wire.abort(ConnectionError(why))
        elif self._task is not None:
            self._task.cancel()
            self._task = asyncio.create_task(self._keep_connected(after=self._task), name="baton-subscriber")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._handlers.clear()
        self._refuse_all(faults.unavailable("the store was closed", self.label))

    async def _keep_connected(self, after: asyncio.Task[None] | None = None) -> None:
        if after is not None:
            await asyncio.gather(after, return_exceptions=True)
        attempt = 0
        while True:
            try:
                endpoint = await self._locate()
                self._wire = await Wire.open(endpoint, on_reply=self._on_reply, on_lost=self._on_lost)
            except StoreError as error:
                if not self._again:
                    logger.warning("no subscription at Redis %s: %s", self.label, error)
                if not error.retryable:
                    self._refuse_all(error)
            else:
                self.label, attempt = endpoint.label, 0
                await self._serve(self._wire, again=self._again)
                self._again = True
            if self.on_trouble is not None:
                self.on_trouble()
            await asyncio.sleep(BACKOFF[min(attempt, len(BACKOFF) - 1)])
            attempt += 1

    async def _serve(self, wire: Wire, *, again: bool) -> None:
        """Subscribes everything, then probes the connection until it is lost."""
        self._lost.clear()
        self._asked.clear()
        self.connected_since = self._heard = asyncio.get_running_loop().time()
        self._awaited = set(self._handlers) if again else set()
        for name in self._handlers:
            self._send(wire, self._verb, name)
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
            self._send(wire, "PING")
            if asyncio.get_running_loop().time() - self._heard > PROBE_DEADLINE:
                wire.abort(TimeoutError(f"no sign of life for {PROBE_DEADLINE:.3g} s"))

    def _send(self, wire: Wire, verb: str, name: bytes = b"") -> None:
        self._asked.append((verb, name))
        wire.write(pack((verb, name) if name else (verb,)))

    def _on_lost(self, error: BaseException) -> None:
        logger.warning("the subscription at Redis %s is lost: %s", self.label, error)
        self._lost.set()

    def _on_reply(self, reply: Any) -> None:
        """Messages come at any time; everything else is the answer to the oldest question."""
        self._heard = asyncio.get_running_loop().time()
        fields = cast("list[Any]", reply) if isinstance(reply, list) else [reply]
        kind = fields[0]
        if kind in (b"smessage", b"message"):
            self._deliver(fields[1], fields[2])
            return
        if kind == b"sunsubscribe" and (not self._asked or self._asked[0] != (self._undo, fields[1])):
            # Not an answer: the slot has another owner now.
            self._misplaced(fields[1], None)
            return
        verb, name = self._asked.popleft() if self._asked else ("", b"")
        if isinstance(kind, ErrorReply):
            if verb == self._verb:
                self._misplaced(name, kind)
        elif verb == self._verb:
            self._confirm(name)

    def _confirm(self, name: bytes) -> None:
        confirmed = self._confirmations.pop(name, None)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)
        self._arrived(name)

    def _arrived(self, name: bytes) -> None:
        if name in self._awaited:
            self._awaited.discard(name)
            if not self._awaited:
                self._tell_restored()

    def _misplaced(self, name: bytes, error: Exception | None) -> None:
        self._arrived(name)
        if name not in self._handlers:
            return
        if self.on_misplaced is not None:
            self.on_misplaced(name, error)
        elif error is not None:
            self._refuse(name, faults.refused(error, self.label))

    def _refuse(self, name: bytes, error: StoreError) -> None:
        """Tells who waits for a confirmation that none will come, instead of letting it time out."""
        future = self._confirmations.pop(name, None)
        if future is not None and not future.done():
            future.set_exception(error)
            future.exception()

    def _refuse_all(self, error: StoreError) -> None:
        for name in list(self._confirmations):
            self._refuse(name, error)

    def _deliver(self, channel: bytes, message: bytes) -> None:
        handler = self._handlers.get(channel)
        if handler is None:
            return
        try:
            handler(message)
        except Exception:
            logger.exception("a handler failed on a message of %s", channel.decode(errors="replace"))

    def _tell_restored(self) -> None:
        for listener in tuple(self.on_restored):
            listener()
