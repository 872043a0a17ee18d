"""Fixtures of several servers: a primary with replicas and Sentinels, and a Cluster, of the embedded server's program.

All are real instances on loopback, up in two or three seconds. A test that breaks one has servers of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from coordination.coordinator import Coordinator
from coordination.dev.ports import LOOPBACK, free_tcp_ports
from coordination.dev.process import ChildProcess
from coordination.dev.valkey import find_valkey
from coordination.errors import StoreError
from coordination.store.endpoint import Endpoint
from coordination.store.inquiry import ask

BOUND = 20.0
"""Seconds; against hangs."""
SERVED_WITHIN = 3.0
"""Seconds from the promotion until waiting requests are served: what is promised of a failover."""
DOWN_AFTER = 500
"""Milliseconds of silence after which a master is held for dead here; in production it is seconds."""


async def eventually(look: Callable[[], Awaitable[Any]], what: str, within: float = BOUND) -> Any:
    """What `look` returns once it is true; errors of the driver count as not yet."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while True:
                with contextlib.suppress(RedisError, StoreError):
                    if found := await look():
                        return found
                await asyncio.sleep(0.02)
    raise AssertionError(f"not within {within} s: {what}")


class Ended(Exception):
    """A server ended instead of starting."""


class Node:
    """One server process, and a client to arrange and observe it."""

    def __init__(self, folder: Path, port: int, *arguments: str, sentinel: bool = False) -> None:
        self.port = port
        self.folder = folder / str(port)
        self.folder.mkdir()
        common = ["--port", str(port), "--bind", LOOPBACK, "--dir", str(self.folder), "--daemonize", "no"]
        if sentinel:
            (self.folder / "sentinel.conf").touch()
            argv = [str(find_valkey()), str(self.folder / "sentinel.conf"), "--sentinel", *common, *arguments]
        else:
            argv = [str(find_valkey()), *common, "--save", "", "--appendonly", "no", *arguments]
        self._process = ChildProcess(f"server {port}", argv, log=self.folder / "server.log")

    def __repr__(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Raises `Ended` if it does not come up, most likely because somebody took its port meanwhile."""
        self._process.spawn()

        async def look() -> bool:
            if not self.running:
                raise Ended(self._process.tail())
            return bool(await self.call("PING"))

        await eventually(look, f"{self!r} answers")

    async def call(self, *command: str | int) -> Any:
        """The reply as it comes: redis-py's clients would retry, and shape it."""
        server = Endpoint(Connection, {"host": LOOPBACK, "port": self.port})
        (reply,) = await ask(server, [str(part) for part in command], within=5.0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def running(self) -> bool:
        return self._process.running

    async def role(self) -> str:
        return (await self.call("ROLE"))[0].decode()

    async def set_up_with(self, *commands: Sequence[str | int]) -> None:
        for command in commands:
            await self.call(*command)

    def stop(self) -> None:
        """SIGSTOP: its sockets stay open, nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()


class Servers:
    """Several nodes in one temporary folder, all ended at the end."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="baton-servers-"))
        self.nodes: list[Node] = []

    def end(self) -> None:
        for node in self.nodes:
            node.wake()
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def start(self) -> None:
        raise NotImplementedError


S = TypeVar("S", bound=Servers)


@asynccontextmanager
async def running(make: Callable[[], S]) -> AsyncIterator[S]:
    """The servers, started; made anew with other ports if one of theirs was taken."""
    for attempt in range(3):
        servers = make()
        try:
            await servers.start()
            yield servers
            return
        except Ended:
            if attempt == 2:
                raise
        finally:
            servers.end()


class SentinelTrio(Servers):
    """One primary, two replicas, three Sentinels."""

    service = "house"

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        ports = free_tcp_ports(6)
        quick = ("--repl-diskless-sync-delay", "0", *arguments)
        self.data = [Node(self.folder, port, *quick) for port in ports[:3]]
        self.sentinels = [Node(self.folder, port, sentinel=True) for port in ports[3:]]
        self.nodes = [*self.data, *self.sentinels]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(map(repr, self.sentinels))}/{self.service}"

    async def start(self) -> None:
        await asyncio.gather(*(node.start() for node in self.nodes))
        for replica in self.data[1:]:
            await replica.call("REPLICAOF", LOOPBACK, self.data[0].port)
        for sentinel in self.sentinels:
            await sentinel.set_up_with(
                ("SENTINEL", "MONITOR", self.service, LOOPBACK, self.data[0].port, 2),
                ("SENTINEL", "SET", self.service, "down-after-milliseconds", DOWN_AFTER),
                ("SENTINEL", "SET", self.service, "failover-timeout", 4000),
            )
        await self.settled()

    async def primary(self) -> Node:
        """The one that the Sentinels name."""
        address = await self.sentinels[0].call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return next(node for node in self.data if node.port == int(address[1]))

    async def promoted(self, other_than: Node) -> Node:
        """The new primary, as soon as it says so itself and a Sentinel names it: nobody can know it before."""

        async def look() -> Node | None:
            named = [await one.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service) for one in self.sentinels]
            for node in self.data:
                if node is not other_than and str(node.port).encode() in [address[1] for address in named]:
                    return node if await node.role() == "master" else None
            return None

        return await eventually(look, f"a replica takes over from {other_than}")

    async def settled(self) -> None:
        """Two replicas follow the primary, and each Sentinel knows all of them and the others."""

        async def look() -> bool:
            primary = await self.primary()
            replicas = (await primary.call("ROLE"))[2]
            return len(replicas) == 2 and all([await self._knows_all(one, primary) for one in self.sentinels])

        await eventually(look, "the trio is complete")

    async def _knows_all(self, sentinel: Node, primary: Node) -> bool:
        facts = [_text(fact) for fact in await sentinel.call("SENTINEL", "MASTER", self.service)]
        seen = dict(zip(facts[::2], facts[1::2], strict=True))
        return (seen["num-slaves"], seen["num-other-sentinels"], seen["flags"], seen["port"]) == (
            "2",
            "2",
            "master",
            str(primary.port),
        )


class Cluster(Servers):
    """Three primaries with a replica each."""

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        ports = free_tcp_ports(12)
        self.nodes = [
            Node(
                self.folder,
                port,
                *(
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    str(bus),
                    "--cluster-node-timeout",
                    str(2 * DOWN_AFTER),
                ),
                *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
                *("--cluster-replica-validity-factor", "0", *arguments),
            )
            for port, bus in zip(ports[:6], ports[6:], strict=True)
        ]
        self._bus = dict(zip(ports[:6], ports[6:], strict=True))

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(map(repr, self.nodes))}"

    async def start(self) -> None:
        await asyncio.gather(*(node.start() for node in self.nodes))
        first, *others = self.nodes
        for number, node in enumerate(self.nodes):
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in others:
            await first.call("CLUSTER", "MEET", LOOPBACK, node.port, self._bus[node.port])
        ranges = ((0, 5460), (5461, 10922), (10923, 16383))
        for node, (low, high) in zip(self.nodes[:3], ranges, strict=True):
            await node.call("CLUSTER", "ADDSLOTSRANGE", low, high)
        for primary, replica in zip(self.nodes[:3], self.nodes[3:], strict=True):
            name = await self.id_of(primary)

            async def follow(node: Node = replica, name: str = name) -> bool:
                return bool(await node.call("CLUSTER", "REPLICATE", name))

            await eventually(follow, f"{replica} knows {primary}")
        await self.settled()

    async def id_of(self, node: Node) -> str:
        return _text(await node.call("CLUSTER", "MYID"))

    async def owner(self, key: str, asked: Node | None = None) -> Node:
        """The primary of the key, as a node that lives sees it."""
        slot = await (asked or await self._living()).call("CLUSTER", "KEYSLOT", key)
        for first, last, member, *_ in await (asked or await self._living()).call("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == int(member[1]))
        raise AssertionError(f"nobody owns slot {slot}")

    async def _living(self) -> Node:
        for node in self.nodes:
            with contextlib.suppress(RedisError, StoreError):
                await node.call("PING")
                return node
        raise AssertionError("no node lives")

    async def promoted(self, key: str, other_than: Node) -> Node:
        """The key's new primary, as soon as it says so itself."""

        async def look() -> Node | None:
            for node in self.nodes:
                if node is other_than or await node.role() != "master":
                    continue
                if await self.owner(key, node) is node:
                    return node
            return None

        return await eventually(look, f"a replica takes over from {other_than}")

    async def settled(self) -> None:
        """All nodes agree on three primaries, and each of these has a replica that follows."""

        async def look() -> bool:
            for node in self.nodes:
                info = _text(await node.call("CLUSTER", "INFO"))
                known = _text(await node.call("CLUSTER", "NODES"))
                if "cluster_state:ok" not in info or "fail" in known or known.count(" connected") != 6:
                    return False
                role = await node.call("ROLE")
                if (role[0] == b"master" and len(role[2]) != 1) or (role[0] == b"slave" and role[3] != b"connected"):
                    return False
                if await self._owners(node) != await self._owners(self.nodes[0]):
                    return False
            return True

        await eventually(look, "the Cluster is complete")

    async def _owners(self, node: Node) -> list[tuple[int, int, int]]:
        return sorted((first, last, member[1]) for first, last, member, *_ in await node.call("CLUSTER", "SLOTS"))

    async def move_slot(self, key: str, to: Node) -> None:
        """Moves the key's slot with all its keys, as a resharding tool does."""
        source = await self.owner(key)
        slot = await source.call("CLUSTER", "KEYSLOT", key)
        here, there = await self.id_of(source), await self.id_of(to)
        await to.call("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        keys = await source.call("CLUSTER", "GETKEYSINSLOT", slot, 100)
        if keys:
            await source.call("MIGRATE", LOOPBACK, to.port, "", 0, 1000, "KEYS", *(key.decode() for key in keys))
        for node in (to, source):
            await node.call("CLUSTER", "SETSLOT", slot, "NODE", there)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# -- what the tests of all topologies arrange and look at ------------------------------------------------------------


async def waits_for_floor(
    waiter: Coordinator, holder: Coordinator, agent: str, *, room: str = "call"
) -> asyncio.Task[int]:
    """A task that is queued for the floor; its result is the fence."""

    async def wait() -> int:
        lease = await waiter.room(room).floor.request(agent, timeout=None)
        fence = lease.fence
        await lease.release()
        return fence

    task = asyncio.create_task(wait())

    async def look() -> bool:
        return agent in [entry.agent for entry in (await holder.room(room).floor.state()).queue]

    await eventually(look, f"{agent} is queued")
    return task


async def nothing_left(coordinator: Coordinator) -> None:
    state = await coordinator.room("call").floor.state()
    assert (state.holder, state.queue) == (None, ()), state
