"""One connection with many calls in flight.

A process needs one command connection, however many tasks it runs: commands are written as they come, replies are
matched in order. What follows from that:

- a call that is cancelled leaves the connection in step: its reply is read and dropped;
- calls made in the same moment leave in one write, a lone call is not delayed;
- one timer watches the oldest call in flight, instead of one per call. A server that answers nothing for
  `deadline` seconds costs the connection, and every call in flight learns that at once.

The link reconnects by itself for as long as it is open.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from redis.asyncio.connection import AbstractConnection

from coordination.errors import StoreUnavailable
from coordination.store import faults
from coordination.store.endpoint import CONNECT_TIMEOUT, Endpoint, discard

logger = logging.getLogger("coordination.store")

_BACKOFF: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between attempts to reconnect: quick at first, since a restarted server is back in well under a second."""


class Link:
    """A connection that is shared by all tasks of the process. Not thread-safe: one event loop."""

    def __init__(self, endpoint: Endpoint, *, deadline: float = 1.0) -> None:
        self._endpoint = endpoint
        self._deadline = deadline
        self._connection: AbstractConnection | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._outgoing: list[bytes] = []
        self._usable = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._last_error: BaseException | str = "it is not open"
        self.on_connected: list[Callable[[], None]] = []
        """Called after each connect, the first included."""

    @property
    def label(self) -> str:
        return self._endpoint.label

    @property
    def connected(self) -> bool:
        return self._writer is not None

    async def open(self) -> None:
        """Connects. Raises `StoreRefused` or `StoreUnavailable` if the first attempt fails; later ones are repeated."""
        await self._connect()
        self._task = asyncio.create_task(self._run(), name="baton-link")

    async def close(self) -> None:
        """Ends the connection; calls in flight fail with `StoreUnavailable`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._drop("the store was closed")

    async def ready(self, timeout: float) -> None:
        """Returns once the link is connected. Raises `StoreUnavailable` if that takes longer than `timeout` seconds."""
        if self._writer is not None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._usable.wait()
        except TimeoutError:
            raise faults.unavailable(self._last_error, self.label) from None

    def call(self, *command: bytes | str | int) -> asyncio.Future[Any]:
        """Sends one command; the future holds the reply.

        Raises `StoreUnavailable` at once if the link is down. The future fails with `StoreUnavailable` if the
        connection is lost before the reply (the command may have run), or with redis-py's `ResponseError`.
        """
        if self._connection is None or self._writer is None:
            raise faults.unavailable(self._last_error, self.label)
        loop = asyncio.get_running_loop()
        if not self._outgoing:
            loop.call_soon(self._flush)
        self._outgoing.extend(self._connection.pack_command(*command))
        future: asyncio.Future[Any] = loop.create_future()
        self._pending.append((future, loop.time()))
        if self._watchdog is None:
            self._watchdog = loop.call_later(self._deadline, self._check_oldest)
        return future

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._writer is not None and outgoing:
            self._writer.write(b"".join(outgoing))

    def _check_oldest(self) -> None:
        self._watchdog = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        due = self._pending[0][1] + self._deadline
        if loop.time() < due:
            self._watchdog = loop.call_at(due, self._check_oldest)
        else:
            self._last_error = f"no answer for {self._deadline:.3g} s"
            if self._writer is not None:
                # Aborting wakes the reader with an error: one place cleans up.
                self._writer.transport.abort()

    async def _connect(self) -> None:
        connection = self._endpoint.connection()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.connect()
        except BaseException as error:
            await discard(connection)
            if isinstance(error, Exception):
                self._last_error = error
                raise faults.on_connect(error, self.label) from error
            raise
        self._connection = connection
        # The public send coroutine closes the connection when its caller is cancelled; the link must not.
        self._writer = connection._writer  # pyright: ignore[reportPrivateUsage]
        self._usable.set()
        for listener in self.on_connected:
            listener()

    async def _run(self) -> None:
        attempt = 0
        while True:
            if self._connection is not None:
                error = await self._read(self._connection)
                logger.warning("the connection to Redis at %s is lost: %s", self.label, error)
                await self._drop(error)
                attempt = 0
            try:
                await self._connect()
                logger.info("connected to Redis at %s again", self.label)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt decides
                self._last_error = error
                await asyncio.sleep(_BACKOFF[min(attempt, len(_BACKOFF) - 1)])
                attempt += 1

    async def _read(self, connection: AbstractConnection) -> BaseException:
        """Hands out replies until the connection breaks; returns why it did."""
        while True:
            try:
                reply = cast("Any", await connection.read_response(disconnect_on_error=False))
            except Exception as error:  # noqa: BLE001 - told to the callers
                if not faults.is_reply(error):
                    return error
                reply = error
            if not self._pending:
                return StoreUnavailable("the server sent a reply that nobody asked for")
            future, _ = self._pending.popleft()
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    async def _drop(self, error: BaseException | str) -> None:
        self._usable.clear()
        if isinstance(error, str) or not isinstance(self._last_error, str) or not self._pending:
            self._last_error = error
        connection, self._connection, self._writer = self._connection, None, None
        self._outgoing.clear()
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        pending, self._pending = self._pending, deque()
        for future, _ in pending:
            if not future.done():
                future.set_exception(faults.unavailable(self._last_error, self.label))
                # A caller that gave up meanwhile will not look; that is no fault of the program.
                future.exception()
        if connection is not None:
            await discard(connection)
