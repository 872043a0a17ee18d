"""A TCP proxy on loopback whose faults are switched while it runs: to be put between a worker and Redis or LiveKit.

    async with FaultyProxy.to(redis_port) as proxy:
        ...                               # give `proxy.port` to the worker
        proxy.black_hole(Direction.DOWN)  # answers vanish, and arrive when it is healed
        proxy.heal()

What is held back is not lost: as on a real network, the sender's TCP repeats it until the path is back. Bytes keep
their order under every fault. One thing differs from a real partition: a new connection is still accepted by the
kernel, and then nothing comes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import urllib.parse
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from types import TracebackType
from typing import Final, Self

from coordination.dev.ports import LOOPBACK, free_tcp_port
from coordination.errors import InvalidArgument

_CHUNK: Final = 64 * 1024
_CHUNKS: Final = 32
"""Held back per direction and connection before the sender feels it: what a kernel would buffer."""
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER without patience: closing sends RST instead of FIN."""


class Direction(Enum):
    """Which way bytes go."""

    UP = "up"
    """From the client to the server behind the proxy."""
    DOWN = "down"
    """From the server to the client."""
    BOTH = "both"

    def covers(self, way: Direction) -> bool:
        return self is Direction.BOTH or self is way


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyStatistics:
    """What went through so far."""

    connections: int
    """Accepted since the start."""
    open: int
    resets: int
    bytes_up: int
    bytes_down: int


class FaultyProxy:
    """Forwards connections from a port of 127.0.0.1 to another one. Every fault takes effect at once, and can be
    switched at any time; connections that are open feel it, too.

    Belongs to one event loop. It ends with `close`, which resets whatever is still connected.
    """

    def __init__(self, target: int, *, port: int | None = None) -> None:
        """Nothing listens yet. `target` is a port of 127.0.0.1; `port` is picked when none is given."""
        self._target = target
        self._port = port or free_tcp_port()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._delay = 0.0
        self._hole: Direction | None = None
        self._path_back = asyncio.Event()
        self._connections = self._resets = 0
        self._bytes = {Direction.UP: 0, Direction.DOWN: 0}

    @classmethod
    def to(cls, target: int | str) -> FaultyProxy:
        """A proxy to a port of this machine, or to the server of a URL on it. Raises `InvalidArgument` for others."""
        if isinstance(target, int):
            return cls(target)
        parts = urllib.parse.urlsplit(target)
        if parts.hostname not in (LOOPBACK, "localhost") or parts.port is None:
            raise InvalidArgument(f"{target!r} is no server with a port on this machine: faults are for loopback only.")
        return cls(parts.port)

    @property
    def port(self) -> int:
        return self._port

    def url(self, direct: str) -> str:
        """The URL that leads through the proxy, for one that leads to the server behind it."""
        parts = urllib.parse.urlsplit(direct)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}{LOOPBACK}:{self._port}").geturl()

    @property
    def statistics(self) -> ProxyStatistics:
        return ProxyStatistics(
            connections=self._connections,
            open=len(self._links),
            resets=self._resets,
            bytes_up=self._bytes[Direction.UP],
            bytes_down=self._bytes[Direction.DOWN],
        )

    async def start(self) -> Self:
        await self.accept()
        return self

    async def close(self) -> None:
        """Stops listening and resets all connections. Can be called at any time, more than once."""
        self.refuse()
        links = list(self._links)
        self.cut()
        await asyncio.gather(*(link.ended() for link in links), return_exceptions=True)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- faults -------------------------------------------------------------------------------------------------------

    def delay(self, by: timedelta) -> None:
        """Each byte arrives so much later, in both directions. What is on its way already keeps its time."""
        self._delay = by.total_seconds()

    def black_hole(self, direction: Direction = Direction.BOTH) -> None:
        """Nothing arrives any more, and nobody is told; also not that a connection ended."""
        self._hole = direction
        self._path_back.clear()

    def heal(self) -> None:
        """Lets everything through again, at once; what was held back arrives now, in order."""
        self._hole, self._delay = None, 0.0
        self._path_back.set()

    def cut(self) -> int:
        """Resets every open connection (RST to both ends); returns how many. New ones are accepted."""
        links = list(self._links)
        for link in links:
            link.reset()
        self._resets += len(links)
        return len(links)

    def refuse(self) -> None:
        """Accepts no connection any more: connecting is refused. Open ones go on."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def accept(self) -> None:
        """Accepts connections again, on the same port. Raises `OSError` if somebody else has taken it."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, LOOPBACK, self._port, reuse_address=True)

    # -- what connections ask -----------------------------------------------------------------------------------------

    async def passage(self, way: Direction, arrived: float, size: int) -> None:
        """Waits until what arrived then may go on."""
        loop = asyncio.get_running_loop()
        wait = arrived + self._delay - loop.time()
        if self._delay and wait > 0:
            await asyncio.sleep(wait)
        while self._hole is not None and self._hole.covers(way):
            await self._path_back.wait()
        self._bytes[way] += size

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.run(self._target)
        finally:
            self._links.discard(link)


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultyProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._beyond: asyncio.StreamWriter | None = None
        self._work: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def run(self, target: int) -> None:
        self._work = asyncio.create_task(self._forward(target), name=f"proxy to port {target}")
        try:
            await asyncio.wait([self._work])
        finally:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            for writer in (self._writer, self._beyond):
                if writer is not None:
                    writer.close()
            self._over.set()

    async def ended(self) -> None:
        await self._over.wait()

    def reset(self) -> None:
        for writer in (self._writer, self._beyond):
            if writer is not None:
                _reset(writer)
        if self._work is not None:
            self._work.cancel()

    async def _forward(self, target: int) -> None:
        try:
            beyond, self._beyond = await asyncio.open_connection(LOOPBACK, target)
        except OSError:
            # The server behind is away: to the client that looks like a server that is away.
            _reset(self._writer)
            return
        ways = [
            asyncio.create_task(self._pump(self._reader, self._beyond, Direction.UP), name="proxy up"),
            asyncio.create_task(self._pump(beyond, self._writer, Direction.DOWN), name="proxy down"),
        ]
        try:
            await asyncio.gather(*ways)
        except OSError:
            # One end was reset, or is gone: so is the other.
            _reset(self._writer)
            _reset(self._beyond)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS)
        delivering = asyncio.create_task(self._deliver(held, writer, way), name=f"proxy delivers {way.value}")
        loop = asyncio.get_running_loop()
        try:
            while True:
                data = await reader.read(_CHUNK)
                await held.put((loop.time(), data))
                if not data:
                    await delivering
                    return
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    async def _deliver(
        self, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, way: Direction
    ) -> None:
        while True:
            arrived, data = await held.get()
            await self._proxy.passage(way, arrived, len(data))
            if not data:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
