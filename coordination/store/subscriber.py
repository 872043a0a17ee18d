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

from redis.asyncio.connection import AbstractConnection

from coordination.errors import StoreUnavailable
from coordination.store import faults
from coordination.store.endpoint import CONNECT_TIMEOUT, Endpoint, discard

logger = logging.getLogger("coordination.store")

PROBE_EVERY: Final = 0.5
PROBE_DEADLINE: Final = 1.0
_BACKOFF: Final = (0.02, 0.05, 0.1, 0.2, 0.4)

Handler = Callable[[bytes], None]


class Subscriber:
    """The process's subscriptions. Handlers run in the event loop and must not block; one handler per channel."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._handlers: dict[bytes, Handler] = {}
        self._confirmations: dict[bytes, asyncio.Future[None]] = {}
        self._connection: AbstractConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard = 0.0
        self.on_restored: list[Callable[[], None]] = []
        """Called after each reconnect, once every channel is subscribed again."""
        self.connected_since: float | None = None
        """Loop time of the last (re)connect, None while there is no connection."""

    async def subscribe(self, channel: str, handler: Handler) -> None:
        """Returns once the server confirmed the subscription. Raises `StoreUnavailable` if it does not in time.

        The first subscription opens the connection.
        """
        name = channel.encode()
        self._handlers[name] = handler
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="baton-subscriber")
        confirmed = self._confirmations.get(name)
        if confirmed is None:
            confirmed = self._confirmations[name] = asyncio.get_running_loop().create_future()
        try:
            if self._connection is not None:
                await self._connection.send_command("SSUBSCRIBE", name, check_health=False)
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.shield(confirmed)
        except (TimeoutError, OSError) as error:
            self._handlers.pop(name, None)
            self._confirmations.pop(name, None)
            raise faults.unavailable(error, self._endpoint.label) from error
        except Exception as error:
            self._handlers.pop(name, None)
            if faults.is_reply(error):
                raise faults.refused(error, self._endpoint.label) from error
            raise faults.unavailable(error, self._endpoint.label) from error

    async def unsubscribe(self, channel: str) -> None:
        """Forgets the channel; messages that are still on their way are dropped."""
        name = channel.encode()
        if self._handlers.pop(name, None) is not None and self._connection is not None:
            try:
                await self._connection.send_command("SUNSUBSCRIBE", name, check_health=False)
            except Exception as error:  # noqa: BLE001 - a broken connection forgets its channels anyway
                logger.debug("unsubscribing failed: %s", error)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._handlers.clear()

    async def _run(self) -> None:
        attempt, restored = 0, False
        while True:
            connection = self._endpoint.connection()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await connection.connect()
                for name in self._handlers:
                    await connection.send_command("SSUBSCRIBE", name, check_health=False)
                self._connection = connection
                self.connected_since = self._heard = asyncio.get_running_loop().time()
                attempt = 0
                await self._listen(connection, restored=restored)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt decides
                if attempt <= 1:
                    logger.warning("the subscription at Redis %s is lost: %s", self._endpoint.label, error)
                if faults.is_reply(error):
                    self._refuse(error)
            finally:
                self._connection = self.connected_since = None
                await discard(connection)
            restored = True
            await asyncio.sleep(_BACKOFF[min(attempt, len(_BACKOFF) - 1)])
            attempt += 1

    def _refuse(self, error: Exception) -> None:
        """Tells those who wait for a confirmation that the server refuses, instead of letting them time out."""
        for future in self._confirmations.values():
            if not future.done():
                future.set_exception(error)
        self._confirmations.clear()

    async def _listen(self, connection: AbstractConnection, *, restored: bool) -> None:
        awaited = set(self._handlers) if restored else set[bytes]()
        if restored and not awaited:
            self._tell_restored()
        probe = asyncio.create_task(self._probe(connection), name="baton-subscriber-probe")
        try:
            while True:
                reply = as_list(await connection.read_response(disconnect_on_error=False))
                self._heard = asyncio.get_running_loop().time()
                kind = reply[0]
                if kind == b"smessage":
                    self._deliver(reply[1], reply[2])
                elif kind == b"ssubscribe":
                    confirmed = self._confirmations.pop(reply[1], None)
                    if confirmed is not None and not confirmed.done():
                        confirmed.set_result(None)
                    if reply[1] in awaited:
                        awaited.discard(reply[1])
                        if not awaited:
                            self._tell_restored()
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)

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

    async def _probe(self, connection: AbstractConnection) -> None:
        """Asks for a sign of life; silence aborts the transport, which wakes the reader with an error."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(PROBE_EVERY)
            await connection.send_command("PING", check_health=False)
            if loop.time() - self._heard > PROBE_DEADLINE:
                writer = connection._writer  # pyright: ignore[reportPrivateUsage]
                if writer is not None:
                    writer.transport.abort()
                raise StoreUnavailable("the subscription does not answer")


def as_list(reply: Any) -> list[Any]:
    """A reply as a list; a single value (the answer to a probe on some servers) becomes a list of one."""
    return cast("list[Any]", reply) if isinstance(reply, list) else [reply]
