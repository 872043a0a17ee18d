"""How a connection to one server is made.

redis-py does what it does well: it parses URLs, speaks TLS, authenticates, negotiates. Its client, its pool and its
retries are not used: a retry that re-sends a command which may have been executed would make a lock wait for itself,
and a cancelled command would cost the connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECT_TIMEOUT: Final = 2.0
"""Seconds that a connect and its handshake may take; a server that is alive answers in milliseconds."""

_OURS: Final[dict[str, Any]] = {
    # Deadlines are the link's own: redis-py's swallow cancellations on Python 3.11 and cost 20 microseconds a command.
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_TIMEOUT,
    "health_check_interval": 0,
    # RESP2 gives the same reply types on every server, and pushes only on subscriber connections.
    "protocol": 2,
    "decode_responses": False,
    "client_name": "baton",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server: its address, and redis-py's options for a connection to it."""

    kind: Callable[..., AbstractConnection]
    """redis-py's class of connection: plain, TLS or a socket file."""
    options: Mapping[str, Any]
    primary_only: bool = False
    """A server that says it is a replica is not connected to."""

    @classmethod
    def of_pool(cls, pool: ConnectionPool) -> Endpoint:
        return cls(pool.connection_class, pool.connection_kwargs)

    @property
    def label(self) -> str:
        """The address without credentials, for messages."""
        return f"unix:{path}" if (path := self.options.get("path")) else f"{self.host}:{self.port}"

    @property
    def host(self) -> str:
        return str(self.options.get("host", "localhost"))

    @property
    def port(self) -> int:
        return int(self.options.get("port", 6379))

    def at(self, host: str, port: int) -> Endpoint:
        """The same options at another address."""
        return replace(self, options={**self.options, "host": host, "port": port})

    def connection(self) -> AbstractConnection:
        """A new connection, not yet connected, that never retries by itself and never times out a read."""
        return self.kind(**{**self.options, **_OURS, "retry": Retry(NoBackoff(), 0)})


Locate = Callable[[], Awaitable[Endpoint]]
"""Finds the server to connect to, anew before each attempt. Raises `StoreError`."""
