"""A Cluster: one link per primary that is used, and one subscription connection per primary that carries a channel.

Links are made when their first key is used: a call touches one or two slots, however large the cluster is. Which
primary owns a slot is learnt from CLUSTER SLOTS. Several nodes are asked at once and the newest view counts, for a node
that was cut off or stopped still believes in itself. They are asked again when a connection is lost or cannot be made,
when a node says MOVED, or gives up a channel (the slot moved); and again, until every connection in use is up.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from coordination.errors import StoreError, StoreUnavailable
from coordination.store import faults
from coordination.store.cluster_subscriber import ClusterSubscriber
from coordination.store.endpoint import CONNECT_TIMEOUT, Endpoint
from coordination.store.inquiry import Question, ask, ask_several
from coordination.store.link import Link
from coordination.store.replicated import ReplicatedLink
from coordination.store.slots import SLOTS, Address, View, ask_view, read_redirection, slot_of
from coordination.store.topology import PAUSE, is_demoted
from coordination.store.wire import ErrorReply

logger = logging.getLogger("coordination.store")

ASKED: Final = 5
"""Nodes that are asked for their view at once: enough to hear one that is not cut off."""
PATIENT: Final = 0.5
"""Seconds between two looks while a node in use is away; chance takes up to half of it off, to spread the load."""
L = TypeVar("L", bound=Link)
_TRANSIENT: Final = ("TRYAGAIN", "CLUSTERDOWN", "LOADING")


class ClusterTopology:
    """The primaries of a Cluster, by slot."""

    def __init__(self, seeds: Sequence[Endpoint]) -> None:
        """`seeds` are asked first; all nodes are spoken to with the options of the first one."""
        self._seeds = [Address(seed.host, seed.port) for seed in seeds]
        self._endpoint = seeds[0]
        self._label = f"Cluster {','.join(seed.label for seed in seeds)}"
        self._owners: list[Address | None] = [None] * SLOTS
        self._nodes: frozenset[Address] = frozenset()
        self._links: dict[Address, Link] = {}
        self._replicated: dict[Address, ReplicatedLink] = {}
        self._stale = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.subscriptions = ClusterSubscriber(
            endpoint=self.endpoint, owner=self.owner, moved=self._moved, look_again=self.look_again
        )

    @property
    def label(self) -> str:
        return self._label

    @property
    def connected(self) -> bool:
        return any(link.connected for link in self._links.values())

    async def open(self) -> None:
        self._take(await self._newest_view())
        self._task = asyncio.create_task(self._keep_current(), name="baton-cluster")
        await self.ready(None, CONNECT_TIMEOUT)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.subscriptions.close()
        links = [*self._links.values(), *self._replicated.values()]
        await asyncio.gather(*(link.close() for link in links), *self._closing)
        self._links.clear()
        self._replicated.clear()

    # -- who owns what ------------------------------------------------------------------------------------------------

    def owner(self, key: str | bytes) -> Address | None:
        """The primary of the key's slot, as last known."""
        return self._owners[slot_of(key)]

    def endpoint(self, address: Address) -> Endpoint:
        return self._endpoint.at(address.host, address.port)

    def look_again(self) -> None:
        """Asks the nodes for their view, soon."""
        self._stale.set()

    async def _keep_current(self) -> None:
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                self._take(await self._newest_view())
            except StoreError as error:
                logger.warning("the nodes of %s do not tell who owns which slot: %s", self._label, error)
                self._stale.set()
            await asyncio.sleep(PATIENT * random.uniform(0.5, 1.0))
            if not self._complete:
                # An attempt to reach a node that hangs takes seconds; who replaces it may be known before.
                self._stale.set()

    @property
    def _complete(self) -> bool:
        return self.subscriptions.complete and all(link.connected for link in self._links.values())

    async def _newest_view(self) -> View:
        some = random.sample(sorted(self._nodes), min(ASKED, len(self._nodes)))
        asked = {*some, *self._seeds[:ASKED]}
        views = await ask_several(ask_view, [self.endpoint(node) for node in asked])
        return max(views, key=lambda view: view.rank)

    def _take(self, view: View) -> None:
        self._owners[:] = view.owners
        self._nodes = view.nodes
        for links in (self._links, self._replicated):
            for address in links.keys() - view.primaries:
                task = asyncio.create_task(links.pop(address).close(), name="baton-cluster-leave")
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self.subscriptions.place_all()

    def _moved(self, error: Exception, asked: str) -> None:
        """Takes in a MOVED at once; the rest of the map is asked for."""
        self.look_again()
        found = read_redirection(str(error), asked)
        if found is not None and str(error).startswith("MOVED"):
            slot, address = found
            self._owners[slot] = address
            self.subscriptions.place_all()

    # -- calls --------------------------------------------------------------------------------------------------------

    def link(self, key: str | bytes | None) -> Link:
        owner = self.owner(key) if key is not None else self._any_primary()
        if owner is None:
            self.look_again()
            raise faults.unavailable("no node owns the slot", self._label)
        return self._link_to(owner)

    def replicated(self, key: str | bytes) -> ReplicatedLink:
        owner = self.owner(key)
        if owner is None:
            self.look_again()
            raise faults.unavailable("no node owns the slot", self._label)
        if owner not in self._replicated:
            self._replicated[owner] = self._made(ReplicatedLink, owner)
        return self._replicated[owner]

    def _link_to(self, address: Address) -> Link:
        if address not in self._links:
            self._links[address] = self._made(Link, address)
        return self._links[address]

    def _made(self, kind: type[L], address: Address) -> L:
        endpoint = self.endpoint(address)

        async def locate() -> Endpoint:
            return endpoint

        link = kind(locate, endpoint.label)
        link.on_trouble = self.look_again
        link.start()
        return link

    def _any_primary(self) -> Address | None:
        for address, link in self._links.items():
            if link.connected:
                return address
        return next((owner for owner in self._owners if owner is not None), None)

    async def ready(self, key: str | bytes | None, timeout: float) -> Link:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        while True:
            # In short steps: while it waits, another node may become the owner.
            try:
                link = self.link(key)
                await link.ready(min(0.1, max(0.0, give_up - loop.time())))
            except StoreUnavailable:
                if loop.time() >= give_up:
                    raise
                await asyncio.sleep(0.01)
            else:
                return link

    async def send(self, key: str | bytes | None, *command: str | bytes | int) -> Any:
        link = self.link(key)
        try:
            return await link.call(*command)
        except ErrorReply as error:
            if not str(error).startswith("ASK "):
                raise
            found = read_redirection(str(error), link.label.rpartition(":")[0])
            if found is None:
                raise
        # The slot is on its way and the key is there already; ASKING holds for the next command of the connection.
        link = self._link_to(found[1])
        await link.ready(1.0)
        asking, reply = link.call("ASKING"), link.call(*command)
        await asking
        return await reply

    async def follow(self, error: Exception, key: str | bytes | None) -> bool:
        text = str(error)
        if text.startswith("MOVED"):
            self._moved(error, self.link(key).label.rpartition(":")[0])
            # While a failover spreads, two nodes may point at each other.
            await asyncio.sleep(PAUSE / 20)
        elif text.startswith(_TRANSIENT) or is_demoted(error):
            self.look_again()
            await asyncio.sleep(PAUSE)
        else:
            return text.startswith("ASK ")
        return True

    async def inquire(self, *questions: Question) -> dict[str, list[Any]]:
        primaries = sorted({owner for owner in self._owners if owner is not None})
        replies = await asyncio.gather(*(ask(self.endpoint(node), *questions) for node in primaries))
        return {str(node): answers for node, answers in zip(primaries, replies, strict=True)}
