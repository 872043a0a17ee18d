"""Where the server is, and how to make a fresh connection to it.

redis-py does what it does well: it parses URLs, speaks TLS, authenticates, negotiates. Its client, its pool and its
retries are not used: a retry that re-sends a command which may have been executed would make a lock wait for itself,
and a cancelled command would cost the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from coordination.errors import InvalidSettings

CONNECT_TIMEOUT: Final = 2.0
"""Seconds that a connect and its handshake may take; a server that is alive answers in milliseconds."""

Target = str | Redis
"""A URL, or a client that the application made."""

_SCHEMES: Final = ("redis", "rediss", "unix")
_LATER: Final = ("redis+sentinel", "redis+cluster")

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
    """One server, addressed by URL or by the pool of a client that the application made."""

    pool: ConnectionPool
    label: str
    """The address without credentials, for messages."""

    @classmethod
    def of(cls, target: Target) -> Endpoint:
        """The endpoint of a URL or of an existing `redis.asyncio.Redis`. Raises `InvalidSettings` for anything else."""
        if isinstance(target, str):
            return cls._of_url(target)
        pool = getattr(target, "connection_pool", None)
        if not isinstance(pool, ConnectionPool):
            raise InvalidSettings(
                f"{type(target).__name__} is no redis.asyncio client and no URL: pass redis.asyncio.Redis(...) "
                "or a URL such as redis://localhost:6379."
            )
        return cls(pool, _label_of(pool.connection_kwargs))

    @classmethod
    def _of_url(cls, url: str) -> Endpoint:
        scheme = urlsplit(url).scheme
        if scheme in _LATER:
            raise InvalidSettings(f"{scheme}:// is not supported by this release: use redis://, rediss:// or unix://.")
        if scheme not in _SCHEMES:
            shown = url if "@" not in url else f"{scheme}://…"
            raise InvalidSettings(
                f"{shown!r} is no Redis URL: it must start with redis://, rediss:// or unix://, "
                "e.g. redis://localhost:6379/0."
            )
        try:
            pool: ConnectionPool = ConnectionPool.from_url(url)  # pyright: ignore[reportUnknownMemberType]
        except ValueError as error:
            raise InvalidSettings(
                f"The Redis URL cannot be read: {error}. Example: redis://localhost:6379/0."
            ) from error
        return cls(pool, _label_of(pool.connection_kwargs))

    def connection(self) -> AbstractConnection:
        """A new connection, not yet connected, that never retries by itself and never times out a read."""
        kwargs: dict[str, Any] = {**self.pool.connection_kwargs, **_OURS, "retry": Retry(NoBackoff(), 0)}
        make: Callable[..., AbstractConnection] = self.pool.connection_class
        return make(**kwargs)


def _label_of(kwargs: dict[str, Any]) -> str:
    if path := kwargs.get("path"):
        return f"unix:{path}"
    return f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"
