"""A worker's own sign of life: its channel, its heartbeat, and what it is told on that channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from coordination.errors import StoreError
from coordination.ids import WorkerId
from coordination.recovery.fleet import Fleet
from coordination.store import Subscriptions

logger = logging.getLogger("coordination.recovery")

BEAT_EVERY: Final = 0.5
LOOK_EVERY: Final = 0.05
"""How soon a worker that has lost its subscription says that it lives all the same: well within the grace it has."""

Listener = Callable[[str], None]


class Presence:
    """Keeps one worker on the registry for as long as `kept` is entered."""

    def __init__(self, fleet: Fleet, subscriber: Subscriptions, worker: WorkerId, told: Listener) -> None:
        """`told` gets each command that arrives on the worker's channel; it returns at once."""
        self._fleet, self._subscriber, self._worker, self._told = fleet, subscriber, worker, told

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None]:
        """Raises `StoreError` if Redis cannot be used at the beginning; later outages are waited out."""
        channel = self._fleet.keys.of_worker(self._worker)
        await self._subscriber.subscribe(channel, self._on_message)
        await self._fleet.beat(self._worker)
        beating = asyncio.create_task(self._beat_on(), name="baton: the worker's heartbeat")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            try:
                # Off the registry first: a worker that is on it without a subscription looks dead.
                await self._fleet.sign_off(self._worker)
                await self._subscriber.unsubscribe(channel)
            except StoreError as error:
                logger.warning("the worker could not sign off, and will be taken for dead: %s", error)

    async def _beat_on(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if (
                self._subscriber.since(self._fleet.keys.of_worker(self._worker)) is not None
                and loop.time() - last < BEAT_EVERY
            ):
                continue
            try:
                await self._fleet.beat(self._worker)
                last = loop.time()
            except StoreError as error:
                logger.debug("a heartbeat failed, the next one follows: %s", error)

    def _on_message(self, message: bytes) -> None:
        self._told(message.decode(errors="replace"))
