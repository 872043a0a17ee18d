"""A primary that Sentinels watch and replace.

Where it is, all Sentinels are asked at once, and the answer with the highest configuration epoch counts: one that was
cut off must not send this process back to a master that was replaced. The server itself must agree (ROLE). A change is
learnt in three ways: `+switch-master` from the Sentinel that this process listens to, a lost or silent connection, a
write that is refused as READONLY; and, should all three miss it, a question every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, Final

from coordination.errors import StoreError, StoreUnavailable
from coordination.store import faults
from coordination.store.endpoint import Endpoint
from coordination.store.inquiry import ask, ask_several
from coordination.store.subscriber import Subscriber
from coordination.store.topology import SingleServer

logger = logging.getLogger("coordination.store")

LOOK_EVERY: Final = 5.0
"""Seconds between questions that nothing has given a reason for; about half of it is chance, to spread the load."""
_SWITCH: Final = "+switch-master"


class SentinelTopology(SingleServer):
    """One primary at a time, at an address that the Sentinels know."""

    def __init__(self, sentinels: Sequence[Endpoint], service: str, primary: Endpoint) -> None:
        """`primary` carries the options of connections to the data servers; its address is not used."""
        self._sentinels = list(sentinels)
        self._service = service
        self._primary = primary
        self._where = f"{service} of Sentinel {','.join(sentinel.label for sentinel in sentinels)}"
        self._current: Endpoint | None = None
        self._asking: asyncio.Task[Endpoint] | None = None
        self._announcements = Subscriber(self._next_sentinel, self._where, verb="SUBSCRIBE")
        self._watch: asyncio.Task[None] | None = None
        super().__init__(primary)
        self._link.label = self.subscriptions.label = self._where

    async def open(self) -> None:
        await self._link.open()
        self._announcements.on_restored.append(self._look_soon)
        self._announcements.add(_SWITCH.encode(), self._on_switch)
        self._watch = asyncio.create_task(self._keep_looking(), name="baton-sentinel")

    async def close(self) -> None:
        for task in (self._watch, self._asking):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._announcements.close()
        await super().close()

    async def locate(self) -> Endpoint:
        """The primary, by the Sentinels. Several that ask at the same time share one answer."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all(), name="baton-sentinel-ask")
            self._asking.add_done_callback(_look_at)
        found = await asyncio.shield(self._asking)
        self._current = found
        return found

    async def _ask_all(self) -> Endpoint:
        _, host, port = max(await ask_several(self._ask, self._sentinels))
        return self._primary.at(host, port)

    async def _ask(self, sentinel: Endpoint, within: float) -> tuple[int, str, int]:
        """Epoch and address. During a failover the first command tells the new address before the second does."""
        address, details = await ask(
            sentinel,
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
            ("SENTINEL", "MASTER", self._service),
            within=within,
        )
        if address is None:
            raise StoreUnavailable(
                f"Sentinel at {sentinel.label} watches no service {self._service!r}: correct the name in the URL."
            )
        if isinstance(address, Exception):
            raise faults.refused(address, sentinel.label) from address
        return _epoch(details), address[0].decode(), int(address[1])

    async def _next_sentinel(self) -> Endpoint:
        """The one to listen to: the first that answers, others first after a failure."""
        self._sentinels.append(self._sentinels.pop(0))
        return self._sentinels[0]

    def _on_switch(self, message: bytes) -> None:
        service, *_, host, port = message.decode().split(" ")
        if service == self._service:
            self._found(self._primary.at(host, int(port)))

    def _found(self, primary: Endpoint) -> None:
        if self._current is None or primary.label != self._current.label:
            self._current = primary
            logger.warning("the Sentinels made %s the primary of %s", primary.label, self._service)
            self.move(f"{primary.label} is the primary now")

    def _look_soon(self) -> None:
        """A switch may have been announced while nobody listened."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = asyncio.create_task(self._keep_looking(0.0), name="baton-sentinel")

    async def _keep_looking(self, delay: float = LOOK_EVERY) -> None:
        while True:
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = LOOK_EVERY
            try:
                self._found(await self._ask_all())
            except StoreError as error:
                logger.warning("no Sentinel answers for %s: %s", self._service, error)


def _look_at(task: asyncio.Task[Endpoint]) -> None:
    """Whoever asked may have been cancelled; a failure is no fault of the program then."""
    if not task.cancelled():
        task.exception()


def _epoch(details: Any) -> int:
    """The configuration epoch; 0 where the Sentinel does not tell it."""
    if not isinstance(details, list):
        return 0
    fields: list[Any] = details  # pyright: ignore[reportUnknownVariableType]
    pairs = dict(zip(fields[::2], fields[1::2], strict=False))
    return int(pairs.get(b"config-epoch", 0))
