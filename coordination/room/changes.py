"""Wakes those who watch a room when something in it changed.

All processes of a room are told on one channel which kind of thing changed (floor, roster, context, turns, handoff,
events). A message is a wake-up and never carries the fact: whoever is woken reads the state. So nothing depends on a
message: after a lost subscription everybody is woken, and a watcher that hears nothing looks again by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from weakref import WeakSet

from coordination.errors import StoreUnavailable
from coordination.store.subscriber import Subscriptions

logger = logging.getLogger("coordination.room")

T = TypeVar("T")

LOOK_AGAIN: Final = timedelta(seconds=5)
"""How long a watcher relies on messages alone: a message can be lost without any sign when a primary dies."""


class Kind(StrEnum):
    """What a message says that has changed."""

    FLOOR = "floor"
    ROSTER = "roster"
    CONTEXT = "context"
    TURNS = "turns"
    HANDOFF = "handoff"
    EVENTS = "events"
    FORGOTTEN = "forgotten"
    """Context and turns so far were erased; see `coordination.room.memory`."""


class Wakeup(asyncio.Event):
    """Set when something of its kind changed since it was last cleared. Use it in a `with` block, or `close` it."""

    def __init__(self, changes: Changes, kind: str) -> None:
        super().__init__()
        self._changes, self._kind = changes, kind

    async def next(self, within: timedelta = LOOK_AGAIN) -> bool:
        """Waits for a change and clears; True if there was one, False if `within` passed without."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                await self.wait()
        told = self.is_set()
        self.clear()
        return told

    def close(self) -> None:
        self._changes.forget(self._kind, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Changes:
    """The wake-ups of one room in one process: one subscription, any number of watchers."""

    def __init__(
        self, subscriber: Subscriptions, channel: str, *, also: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Nothing is subscribed yet; `channel` is `RoomKeys.everyone`. `also` runs when it is opened."""
        self._also = also
        self._subscriber = subscriber
        self._channel = channel
        # Weak, so that a watcher which was dropped without being closed costs nothing.
        self._wakeups: dict[str, WeakSet[Wakeup]] = {}
        self._opening = asyncio.Lock()
        self._open = False
        self.on_forgotten: list[Callable[[], None]] = []
        """Called when what was said and agreed so far has been erased. Must not block."""

    async def open(self) -> None:
        """Subscribes, once however often it is called. Raises `StoreUnavailable` or `StoreRefused`."""
        async with self._opening:
            if self._open:
                return
            if self._also is not None:
                await self._also()
            await self._subscriber.subscribe(self._channel, self.tell)
            self._subscriber.on_restored.append(self.wake_all)
            self._open = True

    async def close(self) -> None:
        """Ends the subscription; watchers hear nothing any more."""
        async with self._opening:
            if self._open:
                self._open = False
                self._subscriber.on_restored.remove(self.wake_all)
                await self._subscriber.unsubscribe(self._channel)

    def on_return(self, told: Callable[[], None]) -> Callable[[], None]:
        """Calls `told` after each reconnect; returns what ends that, and may be called again."""
        listeners = self._subscriber.on_restored
        listeners.append(told)

        def end() -> None:
            if told in listeners:
                listeners.remove(told)

        return end

    def subscribe(self, kind: str) -> Wakeup:
        """An event that is set at each change of that kind from now on. Call `open` first, or nothing sets it."""
        wakeup = Wakeup(self, kind)
        self._wakeups.setdefault(kind, WeakSet()).add(wakeup)
        return wakeup

    def forget(self, kind: str, wakeup: Wakeup) -> None:
        self._wakeups.get(kind, WeakSet[Wakeup]()).discard(wakeup)

    def tell(self, message: bytes) -> None:
        """Takes a message of the channel. One that cannot be read wakes everybody: looking costs little."""
        try:
            content: Any = json.loads(message)
            kind = str(content["k"])
        except (ValueError, TypeError, KeyError):
            logger.warning("a message on a room's channel cannot be read; all watchers look again")
            self.wake_all()
            return
        if kind == Kind.FORGOTTEN:
            for listener in tuple(self.on_forgotten):
                listener()
        # Whatever changed, an event tells of it.
        for wakeup in (*self._wakeups.get(kind, ()), *self._wakeups.get(Kind.EVENTS, ())):
            wakeup.set()

    def wake_all(self) -> None:
        for wakeups in self._wakeups.values():
            for wakeup in tuple(wakeups):
                wakeup.set()

    async def watch(
        self, kind: str, read: Callable[[], Awaitable[T]], *, within: timedelta = LOOK_AGAIN
    ) -> AsyncIterator[T]:
        """Yields what `read` returns: first the current state, then each state that differs from the one before.

        States that follow each other faster than they are taken are skipped; the newest never is. Raises what the
        first `read` raises; while Redis is away later, the watch waits and goes on.
        """
        await self.open()
        with self.subscribe(kind) as wakeup:
            state = await read()
            yield state
            while True:
                await wakeup.next(within)
                try:
                    newest = await read()
                except StoreUnavailable as error:
                    logger.debug("a watch waits for Redis: %s", error)
                    continue
                if newest != state:
                    state = newest
                    yield state
