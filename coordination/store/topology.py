"""Which servers there are: one, one behind Sentinels, or a Cluster.

A topology answers two questions, which server is the primary of a key now, and how one learns that this has changed,
and owns the connections that follow from the answers. What a script may rely on is the same on all three: it touches
one slot, it runs on that slot's primary, and a grant that it pushes reaches the subscribers that it counts.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from coordination.errors import StoreError
from coordination.store.endpoint import Endpoint
from coordination.store.inquiry import Question
from coordination.store.link import Link
from coordination.store.replicated import ReplicatedLink
from coordination.store.subscriber import Subscriber, Subscriptions

PAUSE: Final = 0.1
"""Seconds before a call is sent again to where a refusal pointed."""


class Topology(Protocol):
    """The primaries, and this process's connections to them."""

    @property
    def label(self) -> str:
        """Where the store is, without credentials."""
        ...

    @property
    def connected(self) -> bool:
        """Whether some primary can be called now."""
        ...

    @property
    def subscriptions(self) -> Subscriptions: ...

    async def open(self) -> None:
        """Connects. Raises `StoreRefused` or `StoreUnavailable`."""
        ...

    async def close(self) -> None: ...

    def link(self, key: str | bytes | None) -> Link:
        """The connection to the key's primary, as last known; of any primary for None. It may be down."""
        ...

    def replicated(self, key: str | bytes) -> ReplicatedLink:
        """The second connection to the key's primary, made at its first use. Raises `StoreUnavailable` without one."""
        ...

    async def ready(self, key: str | bytes | None, timeout: float) -> Link:
        """A link that is connected. Raises `StoreUnavailable` if that takes longer than `timeout` seconds."""
        ...

    async def send(self, key: str | bytes | None, *command: str | bytes | int) -> Any:
        """One command where the key's primary is now, redirections followed. For the slow path: it may wait a moment.

        Raises `StoreUnavailable`; wire's `ErrorReply` for a refusal that will not pass by itself.
        """
        ...

    async def follow(self, error: Exception, key: str | bytes | None) -> bool:
        """Takes in what a refusal says about the primaries. False if it says nothing and stands."""
        ...

    async def inquire(self, *questions: Question) -> dict[str, list[Any]]:
        """The replies of each primary, refusals as exceptions among them, by the primary's address."""
        ...


class SingleServer:
    """One address. The server behind it may change: a name that resolves to another host after a failover."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._link = Link(self.locate, endpoint.label)
        self._replicated: ReplicatedLink | None = None
        self.subscriptions = Subscriber(self.locate, endpoint.label)

    async def locate(self) -> Endpoint:
        """Where the primary is."""
        return self._endpoint

    @property
    def label(self) -> str:
        return self._link.label

    @property
    def connected(self) -> bool:
        return self._link.connected

    async def open(self) -> None:
        await self._link.open()

    async def close(self) -> None:
        await self.subscriptions.close()
        if self._replicated is not None:
            await self._replicated.close()
        await self._link.close()

    def link(self, key: str | bytes | None) -> Link:
        return self._link

    def replicated(self, key: str | bytes) -> ReplicatedLink:
        if self._replicated is None:
            self._replicated = ReplicatedLink(self.locate, self.label)
            self._replicated.start()
        return self._replicated

    async def ready(self, key: str | bytes | None, timeout: float) -> Link:
        await self._link.ready(timeout)
        return self._link

    async def send(self, key: str | bytes | None, *command: str | bytes | int) -> Any:
        return await self._link.call(*command)

    async def follow(self, error: Exception, key: str | bytes | None) -> bool:
        if not is_demoted(error):
            return False
        self.move(f"the server refuses writes ({error})")
        await asyncio.sleep(PAUSE)
        return True

    def move(self, why: str) -> None:
        """All connections go to where the primary is now."""
        self._link.renew(why)
        if self._replicated is not None:
            self._replicated.renew(why)
        self.subscriptions.renew(why)

    async def inquire(self, *questions: Question) -> dict[str, list[Any]]:
        calls = [self._link.call(*question) for question in questions]
        replies = await asyncio.gather(*calls, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return {self.label: list(replies)}


def is_demoted(error: Exception) -> bool:
    """Whether a server that was the primary says that it is a replica."""
    text = str(error)
    return text.startswith(("READONLY", "MASTERDOWN")) or "read only replica" in text
