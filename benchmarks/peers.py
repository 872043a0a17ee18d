"""Locks of others, and ours, behind one shape: what is compared does the same work in the same loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis
from redis_fifo_lock import FifoLock

from coordination.coordinator import Coordinator

NAME = "bench"
TTL = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Peer:
    """A lock: what `acquire` returns is given to `release`."""

    name: str
    acquire: Callable[[str], Awaitable[Any]]
    release: Callable[[Any], Awaitable[Any]]


def baton(coordinator: Coordinator) -> Peer:
    async def acquire(name: str) -> Any:
        return await coordinator.acquire_lock(name, ttl=TTL, timeout=None)

    async def release(lease: Any) -> None:
        await lease.release()

    return Peer("baton", acquire, release)


def redis_py(client: Redis) -> Peer:
    async def acquire(name: str) -> Any:
        # A lock object for each taker: the token is kept per thread, so tasks that share one would share the lock.
        lock = client.lock(name, timeout=TTL.total_seconds(), thread_local=False)
        await lock.acquire()
        return lock

    async def release(lock: Any) -> None:
        await lock.release()

    return Peer("redis-py", acquire, release)


def fifo(client: Redis) -> Peer:
    locks: dict[str, FifoLock] = {}

    async def acquire(name: str) -> Any:
        lock = locks.setdefault(name, FifoLock(client, name, lease_ms=10_000))
        return lock, await lock.acquire()

    async def release(held: Any) -> None:
        lock, lease = held
        await lock.release(lease)

    return Peer("redis-fifo-lock", acquire, release)


def bare(client: Redis, sha: str) -> Peer:
    """The base: two calls of a script that does nothing, one for each of acquire and release."""

    async def acquire(_: str) -> None:
        await client.evalsha(sha, 0)  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues]

    async def release(_: Any) -> None:
        await client.evalsha(sha, 0)  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues]

    return Peer("2 x EVALSHA", acquire, release)
