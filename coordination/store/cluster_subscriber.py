"""Subscriptions in a Cluster: each channel at the primary of its slot, wherever that is now.

A node that loses a slot takes its channels' subscriptions away (SUNSUBSCRIBE, unasked), a node that is asked for
another's slot answers MOVED: either way the channel is subscribed again at the new owner, and every listener is told
afterwards, so that it repeats what it may have missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from coordination.errors import StoreError
from coordination.store import faults
from coordination.store.endpoint import CONNECT_TIMEOUT, Endpoint
from coordination.store.slots import Address
from coordination.store.subscriber import Handler, Subscriber

_PASSES: tuple[str, ...] = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING")


@dataclass(slots=True, eq=False)
class _Channel:
    """One channel: who hears it, and where it is subscribed."""

    handler: Handler
    confirmed: asyncio.Future[None]
    at: Address | None = None
    moving: bool = False
    """It was subscribed before: those who listen must look again once it is at its new place."""


class ClusterSubscriber:
    """The process's subscriptions at all primaries."""

    def __init__(
        self,
        *,
        endpoint: Callable[[Address], Endpoint],
        owner: Callable[[bytes], Address | None],
        moved: Callable[[Exception, str], None],
        look_again: Callable[[], None],
    ) -> None:
        self._endpoint, self._owner, self._moved, self._look_again = endpoint, owner, moved, look_again
        self._channels: dict[bytes, _Channel] = {}
        self._nodes: dict[Address, Subscriber] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.on_restored: list[Callable[[], None]] = []

    @property
    def connected_since(self) -> float | None:
        """Of the connection that was made last; None while one is missing."""
        since = [node.connected_since for node in self._nodes.values()]
        known = [at for at in since if at is not None]
        return max(known) if known and len(known) == len(since) else None

    @property
    def complete(self) -> bool:
        """Whether every channel is subscribed where it belongs."""
        placed = all(entry.at is not None and not entry.moving for entry in self._channels.values())
        return placed and all(node.connected_since is not None for node in self._nodes.values())

    def since(self, channel: str) -> float | None:
        owner = self._owner(channel.encode())
        node = self._nodes.get(owner) if owner is not None else None
        return node.connected_since if node is not None else None

    async def subscribe(self, channel: str, handler: Handler) -> None:
        name = channel.encode()
        entry = self._channels.get(name)
        if entry is None:
            entry = self._channels[name] = _Channel(handler, asyncio.get_running_loop().create_future())
            self._place(name, entry)
        entry.handler = handler
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.shield(entry.confirmed)
        except (TimeoutError, StoreError) as error:
            await self.unsubscribe(channel)
            if isinstance(error, StoreError):
                raise
            raise faults.unavailable(error, "the Cluster") from error

    async def unsubscribe(self, channel: str) -> None:
        name = channel.encode()
        entry = self._channels.pop(name, None)
        if entry is not None and entry.at is not None:
            self._nodes[entry.at].remove(name)
            self._leave_unused()

    async def close(self) -> None:
        for entry in self._channels.values():
            _fail(entry.confirmed, faults.unavailable("the store was closed", "the Cluster"))
        self._channels.clear()
        await asyncio.gather(*(node.close() for node in self._nodes.values()), *self._closing)
        self._nodes.clear()

    # -- places -------------------------------------------------------------------------------------------------------

    def place_all(self) -> None:
        """Subscribes each channel that is not at its slot's owner there."""
        for name, entry in self._channels.items():
            self._place(name, entry)
        self._leave_unused()

    def _place(self, name: bytes, entry: _Channel) -> None:
        owner = self._owner(name)
        if owner is None:
            self._look_again()
            return
        if owner == entry.at:
            return
        if entry.at is not None:
            self._nodes[entry.at].remove(name)
            entry.moving = entry.moving or entry.confirmed.done()
        entry.at = owner
        self._node(owner).add(name, entry.handler).add_done_callback(lambda done: self._on_placed(name, entry, done))

    def _on_placed(self, name: bytes, entry: _Channel, done: asyncio.Future[None]) -> None:
        if done.cancelled() or self._channels.get(name) is not entry:
            return
        if (error := done.exception()) is not None:
            _fail(entry.confirmed, error)
            return
        if not entry.confirmed.done():
            entry.confirmed.set_result(None)
        if entry.moving:
            entry.moving = False
            if not any(other.moving for other in self._channels.values()):
                self._tell_restored()

    def _on_misplaced(self, node: Subscriber, name: bytes, error: Exception | None) -> None:
        entry = self._channels.get(name)
        if entry is None:
            return
        if error is not None and not str(error).startswith(_PASSES):
            _fail(entry.confirmed, faults.refused(error, node.label))
            return
        node.remove(name)
        entry.at, entry.moving = None, entry.moving or entry.confirmed.done()
        if error is not None:
            self._moved(error, node.label.rpartition(":")[0])
        else:
            self._look_again()

    def _node(self, address: Address) -> Subscriber:
        node = self._nodes.get(address)
        if node is None:
            endpoint = self._endpoint(address)

            async def locate() -> Endpoint:
                return endpoint

            node = self._nodes[address] = Subscriber(locate, endpoint.label)
            node.on_trouble = self._look_again
            node.on_misplaced = lambda name, error: self._on_misplaced(node, name, error)
            node.on_restored.append(self._tell_restored)
        return node

    def _leave_unused(self) -> None:
        used = {entry.at for entry in self._channels.values()}
        for address in self._nodes.keys() - used:
            task = asyncio.create_task(self._nodes.pop(address).close(), name="baton-cluster-leave")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _tell_restored(self) -> None:
        for listener in tuple(self.on_restored):
            listener()


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        # Who waited may have given up meanwhile; that is no fault of the program.
        future.exception()
