"""Turns a URL, or a client that the application made, into a topology."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError

from coordination.errors import InvalidSettings
from coordination.store.cluster import ClusterTopology
from coordination.store.endpoint import Endpoint
from coordination.store.sentinel import SentinelTopology
from coordination.store.topology import SingleServer, Topology

Target = str | Redis | RedisCluster
"""A URL, or a client that the application made."""

_SINGLE: Final = ("redis", "rediss", "unix")
SENTINEL_EXAMPLE: Final = "redis+sentinel://sentinel1:26379,sentinel2:26379/mymaster"
CLUSTER_EXAMPLE: Final = "redis+cluster://node1:6379,node2:6379"
_TRUE: Final = ("", "1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")
_CREDENTIALS: Final = ("username", "password", "credential_provider")


def topology_of(target: Target) -> Topology:
    """What is behind a URL, a `redis.asyncio` client, or one that its `Sentinel.master_for` made.

    Raises `InvalidSettings` for anything else. Clients lend their address, credentials and TLS; their connections are
    not used, and they stay open.
    """
    if isinstance(target, str):
        return _of_url(target)
    if isinstance(target, RedisCluster):
        return _of_cluster_client(target)
    pool = getattr(target, "connection_pool", None)
    if isinstance(pool, SentinelConnectionPool):
        return _of_sentinel_pool(pool)
    if not isinstance(pool, ConnectionPool):
        raise InvalidSettings(
            f"{type(target).__name__} is no redis.asyncio client and no URL: pass redis.asyncio.Redis(...), "
            "redis.asyncio.RedisCluster(...), a client of redis.asyncio.Sentinel(...).master_for(...), "
            "or a URL such as redis://localhost:6379."
        )
    return SingleServer(Endpoint.of_pool(pool))


# -- URLs -------------------------------------------------------------------------------------------------------------


def _of_url(url: str) -> Topology:
    scheme = urlsplit(url).scheme
    if scheme == "redis+sentinel":
        return _of_sentinel_url(url)
    if scheme == "redis+cluster":
        return _of_cluster_url(url)
    if scheme not in _SINGLE:
        shown = url if "@" not in url else f"{scheme}://…"
        raise InvalidSettings(
            f"{shown!r} is no Redis URL: it must start with redis://, rediss:// or unix://, e.g. "
            f"redis://localhost:6379/0, or be one for Sentinel ({SENTINEL_EXAMPLE}) or a Cluster ({CLUSTER_EXAMPLE})."
        )
    return SingleServer(_endpoint(url, "redis://localhost:6379/0"))


def _of_sentinel_url(url: str) -> Topology:
    users, hosts, path, options = _split(url, SENTINEL_EXAMPLE)
    service, _, db = path.partition("/")
    if not service or (db and not db.isdigit()):
        raise _unreadable("it must name the service that the Sentinels watch, and after it at most a number", url)
    tls = _flag(options, "tls", default=False)
    sentinel_tls = _flag(options, "sentinel_tls", default=tls)
    credentials = {
        name: value for name in ("username", "password") if (value := options.pop(f"sentinel_{name}", None)) is not None
    }
    primary = _made(tls, users, hosts[0], db or "0", options)
    sentinels = [_made(sentinel_tls, "", host, "", options) for host in hosts]
    return SentinelTopology(
        [Endpoint(one.kind, {**one.options, **credentials}) for one in sentinels],
        service,
        Endpoint(primary.kind, primary.options, primary_only=True),
    )


def _of_cluster_url(url: str) -> Topology:
    users, hosts, path, options = _split(url, CLUSTER_EXAMPLE)
    if path not in ("", "0"):
        raise _unreadable("a Cluster has no numbered databases", url)
    tls = _flag(options, "tls", default=False)
    return ClusterTopology([_made(tls, users, host, "", options) for host in hosts])


def _split(url: str, example: str) -> tuple[str, list[str], str, dict[str, str]]:
    """Credentials, hosts with ports, path and options of a URL that names several hosts."""
    parts = urlsplit(url)
    users, _, hosts = parts.netloc.rpartition("@")
    named = [host for host in hosts.split(",") if host]
    if not named:
        raise InvalidSettings(f"The Redis URL names no host. Example: {example}.")
    return users, named, parts.path.strip("/"), dict(parse_qsl(parts.query, keep_blank_values=True))


def _made(tls: bool, users: str, host: str, db: str, options: dict[str, str]) -> Endpoint:
    """One of several hosts, read as a URL of its own, so that options mean what they mean to redis-py."""
    scheme = "rediss" if tls else "redis"
    start = f"{users}@" if users else ""
    # A plain connection knows none of the options of TLS, which are there for the other kind of server.
    known = {name: value for name, value in options.items() if tls or not name.startswith("ssl_")}
    return _endpoint(f"{scheme}://{start}{host}/{db}?{urlencode(known)}", SENTINEL_EXAMPLE)


def _endpoint(url: str, example: str) -> Endpoint:
    try:
        pool: ConnectionPool = ConnectionPool.from_url(url)  # pyright: ignore[reportUnknownMemberType]
        endpoint = Endpoint.of_pool(pool)
        # Made and dropped: an option that redis-py does not know is named now, not at the first connection.
        endpoint.connection()
    except (ValueError, TypeError, RedisError) as error:
        raise InvalidSettings(f"The Redis URL cannot be read: {error}. Example: {example}.") from error
    return endpoint


def _flag(options: dict[str, str], name: str, *, default: bool) -> bool:
    value = options.pop(name, None)
    if value is None:
        return default
    if value.lower() not in _TRUE + _FALSE:
        raise InvalidSettings(f"{name}={value} in the Redis URL is neither true nor false.")
    return value.lower() in _TRUE


def _unreadable(why: str, url: str) -> InvalidSettings:
    example = SENTINEL_EXAMPLE if "sentinel" in urlsplit(url).scheme else CLUSTER_EXAMPLE
    return InvalidSettings(f"The Redis URL cannot be read: {why}. Example: {example}.")


# -- clients ----------------------------------------------------------------------------------------------------------


def _of_sentinel_pool(pool: SentinelConnectionPool) -> Topology:
    source = cast("Any", pool)
    if not source.is_master:
        raise InvalidSettings("The client was made by slave_for and reads from replicas: pass one of master_for.")
    clients = cast("Sequence[Redis]", source.sentinel_manager.sentinels)
    sentinels = [Endpoint.of_pool(client.connection_pool) for client in clients]
    return SentinelTopology(sentinels, str(source.service_name), _plain(pool.connection_kwargs, "ssl" in _class(pool)))


def _class(pool: ConnectionPool) -> str:
    return pool.connection_class.__name__.lower()


def _of_cluster_client(client: RedisCluster) -> Topology:
    nodes = list(client.nodes_manager.startup_nodes.values())
    kwargs = client.connection_kwargs
    base = _plain(kwargs, issubclass(kwargs.get("connection_class", Connection), SSLConnection))
    return ClusterTopology([Endpoint(base.kind, base.options).at(node.host, int(node.port)) for node in nodes])


def _plain(kwargs: dict[str, Any], tls: bool) -> Endpoint:
    """Credentials, database and TLS of a client, without what ties connections to it."""
    kept = {
        name: value
        for name, value in kwargs.items()
        if name in (*_CREDENTIALS, "db") or (tls and name.startswith("ssl_"))
    }
    return Endpoint(SSLConnection if tls else Connection, kept, primary_only=True)
