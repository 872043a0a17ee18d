"""One connection that hands each reply to a callback, in the moment in which it arrives.

redis-py opens it: address, TLS, credentials, handshake. From then on the transport is read here: a stream and a task
that waits for it would cost each reply two more turns of the event loop. hiredis parses and packs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from coordination.errors import InvalidSettings, StoreUnavailable
from coordination.store import faults
from coordination.store.endpoint import CONNECT_TIMEOUT, Endpoint

ErrorReply: Final = hiredis.ReplyError
"""The server's answer to one command that it refuses; the connection is in step."""


class Wire(asyncio.Protocol):
    """An open connection. `on_reply` gets bytes, integers, None, lists of these, or an `ErrorReply`."""

    def __init__(self, on_reply: Callable[[Any], None], on_lost: Callable[[BaseException], None]) -> None:
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._connection: AbstractConnection | None = None
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.get_running_loop().create_future()
        self._why: BaseException | None = None

    @classmethod
    async def open(
        cls, endpoint: Endpoint, *, on_reply: Callable[[Any], None], on_lost: Callable[[BaseException], None]
    ) -> Wire:
        """Connects. Raises `StoreRefused` or `StoreUnavailable`."""
        connection = endpoint.connection()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.connect()
                if endpoint.primary_only:
                    await _require_primary(connection, endpoint.label)
        except BaseException as error:
            await connection.disconnect(nowait=True)
            if isinstance(error, RedisError | OSError | TimeoutError):
                raise faults.on_connect(error, endpoint.label) from error
            raise
        wire = cls(on_reply, on_lost)
        wire._take_over(connection)
        return wire

    def _take_over(self, connection: AbstractConnection) -> None:
        # redis-py gives no public way to its transport; tests hold each supported release to this.
        writer = connection._writer  # pyright: ignore[reportPrivateUsage]
        transport = cast("asyncio.Transport | None", getattr(writer, "transport", None))
        if not isinstance(transport, asyncio.Transport):
            raise InvalidSettings(
                f"{type(connection).__name__} has no network connection behind it: pass a URL or a client of a real "
                "server (for fakeredis, its TcpFakeServer)."
            )
        self._connection, self._transport = connection, transport
        transport.set_protocol(self)

    def write(self, data: bytes) -> None:
        """Sends bytes; lost ones are told by `on_lost`."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self, why: BaseException) -> None:
        """Ends the connection at once, whatever is unsent; `on_lost` is called with `why`."""
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Ends the connection without a call of `on_lost`; returns when it is gone."""
        self._on_lost = _ignore
        if self._transport is not None:
            self._transport.abort()
            await self._gone

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._on_reply(reply)
        except hiredis.ProtocolError as error:
            self.abort(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        connection, self._connection = self._connection, None
        if connection is not None:
            # What redis-py holds is closed already; without this its finalizer would complain.
            connection._reader = connection._writer = None  # pyright: ignore[reportPrivateUsage]
        self._gone.set_result(None)
        self._on_lost(self._why or exc or ConnectionResetError("the server closed the connection"))


async def _require_primary(connection: Any, label: str) -> None:
    """Whoever named the server may be behind: only the server itself knows whether it is the primary."""
    await connection.send_command("ROLE")
    try:
        role: Any = await connection.read_response()
    except ResponseError:
        # Not allowed to ask: then the refusal of the first write tells.
        return
    if role[0] != b"master":
        raise StoreUnavailable(f"Redis at {label} is a replica now. Wait for the new primary to be announced.")


def _ignore(_: BaseException) -> None:
    """For a connection that is closed on purpose."""


class Hole(Enum):
    """What a template is filled in with."""

    TEXT = b"$%d\r\n%b\r\n"
    NUMBER = b"$20\r\n%020d\r\n"
    """Of at most 64 bits; leading zeros, so that its length is known."""


class Template:
    """A command that is sent again and again with other numbers: the rest of it is packed once."""

    def __init__(self, *command: str | Hole) -> None:
        """One text is filled in, and numbers behind it."""
        bulks = (part.value if isinstance(part, Hole) else _bulk(part.encode()) for part in command)
        self._form = b"*%d\r\n" % len(command) + b"".join(bulks)

    def filled(self, text: str, numbers: Iterable[int]) -> bytes:
        """The command as bytes on the wire."""
        encoded = text.encode()
        return self._form % (len(encoded), encoded, *numbers)


def _bulk(value: bytes) -> bytes:
    return (b"$%d\r\n%b\r\n" % (len(value), value)).replace(b"%", b"%%")


def pack(command: tuple[bytes | str | int, ...]) -> bytes:
    """The command as bytes on the wire."""
    return _pack(command)


_pack: Final = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", getattr(hiredis, "pack_command"))  # noqa: B009
