"""One connection with many calls in flight.

A process needs one command connection, however many tasks it runs: commands are written as they come, replies are
matched in order. What follows from that:

- a call that is cancelled leaves the connection in step: its reply is read and dropped;
- a lone call is written at once, the others of the same moment leave together behind it;
- one timer watches the oldest call in flight, instead of one per call. A server that answers nothing for
  `deadline` seconds costs the connection, and every call in flight learns that at once.

The link reconnects by itself for as long as it is open. It asks anew before each attempt where the server is, so that
it follows a primary that moved.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from coordination.errors import StoreError
from coordination.store import faults
from coordination.store.endpoint import Locate
from coordination.store.wire import ErrorReply, Wire, pack

logger = logging.getLogger("coordination.store")

Late = Callable[[Any], None]
"""Gets a reply for which nobody waits any more."""

BACKOFF: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Seconds between attempts to reconnect: quick at first, since a restarted server is back in well under a second."""


class Link:
    """A connection that is shared by all tasks of the process. Not thread-safe: one event loop."""

    def __init__(self, locate: Locate, label: str, *, deadline: float = 1.0) -> None:
        """`label` says where it goes in messages, before `locate` has said it."""
        self.label = label
        self.on_trouble: Callable[[], None] = _nothing
        """Called when the connection is lost, and after each failed attempt to connect."""
        self._locate = locate
        self._deadline = deadline
        self._wire: Wire | None = None
        self._pending: deque[tuple[asyncio.Future[Any], float, Late | None]] = deque()
        self._outgoing: list[bytes] = []
        self._usable = asyncio.Event()
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.starting = False
        """Whether it was started and has neither connected nor failed yet."""
        self._watchdog: asyncio.TimerHandle | None = None
        self._last_error: BaseException | str = "it is not open"

    @property
    def connected(self) -> bool:
        return self._wire is not None

    async def open(self) -> None:
        """Connects. Raises `StoreRefused` or `StoreUnavailable` if the first attempt fails; later ones are repeated."""
        await self._connect()
        self._task = asyncio.create_task(self._keep_connected(), name="baton-link")

    def start(self) -> None:
        """Connects in the background; `ready` tells when it has."""
        self.starting = True
        self._lost.set()
        self._task = asyncio.create_task(self._keep_connected(), name="baton-link")

    def renew(self, why: str) -> None:
        """Leaves the server, or an attempt to reach it that may hang, and connects to where the primary is now."""
        if self._wire is not None:
            self._wire.abort(ConnectionError(why))
        elif self._task is not None:
            self._task.cancel()
            self._lost.set()
            self._task = asyncio.create_task(self._keep_connected(after=self._task), name="baton-link")

    async def close(self) -> None:
        """Ends the connection; calls in flight fail with `StoreUnavailable`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        wire = self._wire
        self._drop("the store was closed")
        if wire is not None:
            await wire.close()

    async def ready(self, timeout: float) -> None:
        """Returns once the link is connected. Raises `StoreUnavailable` if that takes longer than `timeout` seconds."""
        if self._wire is not None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._usable.wait()
        except TimeoutError:
            raise faults.unavailable(self._last_error, self.label) from None

    def call(self, *command: bytes | str | int, late: Late | None = None) -> asyncio.Future[Any]:
        """Sends one command; the future holds the reply. `late` gets the reply of a call that was cancelled meanwhile,
        unless the server refused it or the connection was lost.

        Raises `StoreUnavailable` at once if the link is down. The future fails with `StoreUnavailable` if the
        connection is lost before the reply (the command may have run), or with `ErrorReply`.
        """
        return self.send(pack(command), late)

    def send(self, data: bytes, late: Late | None = None) -> asyncio.Future[Any]:
        """The same for a command that is packed already."""
        wire = self._wire
        if wire is None:
            raise faults.unavailable(self._last_error, self.label)
        loop = asyncio.get_running_loop()
        if not self._pending:
            wire.write(data)
        else:
            # With others in flight, what is asked in one moment leaves in one write.
            if not self._outgoing:
                loop.call_soon(self._flush)
            self._outgoing.append(data)
        future: asyncio.Future[Any] = loop.create_future()
        now = loop.time()
        self._pending.append((future, now, late))
        if self._watchdog is None:
            self._watchdog = loop.call_at(now + self._deadline, self._check_oldest)
        return future

    def _flush(self) -> None:
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, []
            if self._wire is not None:
                self._wire.write(b"".join(outgoing))

    def _check_oldest(self) -> None:
        self._watchdog = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        due = self._pending[0][1] + self._deadline
        if loop.time() < due:
            self._watchdog = loop.call_at(due, self._check_oldest)
        elif self._wire is not None:
            self._wire.abort(TimeoutError(f"no answer for {self._deadline:.3g} s"))

    def _on_reply(self, reply: Any) -> None:
        if not self._pending:
            if self._wire is not None:
                self._wire.abort(ConnectionError("the server sent a reply that nobody asked for"))
            return
        future, _, late = self._pending.popleft()
        if future.done():
            if late is not None and not isinstance(reply, ErrorReply):
                late(reply)
            return
        if isinstance(reply, ErrorReply):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _on_lost(self, error: BaseException) -> None:
        logger.warning("the connection to Redis at %s is lost: %s", self.label, error)
        self._drop(error)
        self._lost.set()
        self.on_trouble()

    async def _connect(self) -> None:
        try:
            endpoint = await self._locate()
            self._wire = await Wire.open(endpoint, on_reply=self._on_reply, on_lost=self._on_lost)
        except StoreError as error:
            self._last_error = error
            raise
        finally:
            self.starting = False
        self.label = endpoint.label
        self._usable.set()

    async def _keep_connected(self, after: asyncio.Task[None] | None = None) -> None:
        if after is not None:
            await asyncio.gather(after, return_exceptions=True)
        while True:
            await self._lost.wait()
            self._lost.clear()
            attempt = 0
            while self._wire is None:
                try:
                    await self._connect()
                except StoreError:
                    self.on_trouble()
                    await asyncio.sleep(BACKOFF[min(attempt, len(BACKOFF) - 1)])
                    attempt += 1
            logger.info("connected to Redis at %s", self.label)

    def _drop(self, error: BaseException | str) -> None:
        """Forgets the connection; every call in flight learns why."""
        self._usable.clear()
        self._wire = None
        self._last_error = error
        self._outgoing.clear()
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        pending, self._pending = self._pending, deque()
        for future, *_ in pending:
            if not future.done():
                future.set_exception(faults.unavailable(error, self.label))
                # A caller that gave up meanwhile will not look; that is no fault of the program.
                future.exception()


def _nothing() -> None:
    """Nobody asked to be told."""
