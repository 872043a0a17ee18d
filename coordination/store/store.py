"""The store: runs scripts on the server that holds their keys, and owns this process's two connections.

`run` is safe to repeat: every script of this library is idempotent by request id, version or fence, so a call whose
reply was lost is sent again once the link is back, until its patience ends. On cancellation nothing is repeated; the
command may have run, and the caller's own clean-up (a cancel script) goes out on the same connection, behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis

from coordination.errors import StoreRefused, StoreUnavailable
from coordination.store import faults
from coordination.store.endpoint import Endpoint
from coordination.store.keys import Catalogue
from coordination.store.link import Link
from coordination.store.scripts import Script
from coordination.store.subscriber import Subscriber
from coordination.store.wire import ErrorReply

logger = logging.getLogger("coordination.store")

PATIENCE: Final = 2.0
"""Seconds that one call may take altogether, reconnects included: the default TTL of the floor. A call that is later
than that could only report what its lease's own deadline has said already."""

_OLDEST: Final = (7, 0)


class Store:
    """Connections to one Redis or Valkey, and the only way to run a script there."""

    def __init__(self, target: str | Redis, *, prefix: str = "baton", allow_eviction: bool = False) -> None:
        """Nothing is connected yet. Raises `InvalidSettings` for a URL that is none."""
        self._endpoint = Endpoint.of(target)
        self._link = Link(self._endpoint)
        self._allow_eviction = allow_eviction
        self.keys = Catalogue(prefix)
        self.subscriber = Subscriber(self._endpoint)

    @property
    def label(self) -> str:
        """Where the server is, without credentials."""
        return self._endpoint.label

    @property
    def connected(self) -> bool:
        return self._link.connected

    async def open(self) -> None:
        """Connects and checks that the server can be relied on.

        Raises `StoreUnavailable` if it does not answer; `StoreRefused` if it is older than Redis 7.0, a replica,
        refuses the credentials, or evicts keys (every key has a TTL, so all of them could be evicted).
        """
        await self._link.open()
        try:
            await self._check_server()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self.subscriber.close()
        await self._link.close()

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | bytes | int] = (),
        *,
        patience: float = PATIENCE,
    ) -> Any:
        """Runs the script in one round trip and returns its reply.

        Raises `StoreRefused` if the server refuses, `StoreUnavailable` if it could not be reached within `patience`
        seconds; then the script may or may not have run.
        """
        try:
            return await self._link.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except StoreUnavailable:
            if patience <= 0:
                raise
        except ErrorReply as error:
            if not str(error).startswith("NOSCRIPT"):
                raise faults.refused(error, self.label) from error
        return await self._run_again(script, keys, args, patience)

    def send(self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int] = ()) -> asyncio.Future[Any]:
        """Sends the script and returns the future of its reply, for a caller that has to see it even when cancelled.

        Raises `StoreUnavailable` at once if the link is down. Nothing is repeated; `run` is what to do about a failure.
        """
        return self._link.call("EVALSHA", script.sha, len(keys), *keys, *args)

    async def _run_again(
        self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int], patience: float
    ) -> Any:
        """The slow path: a script that the server has not seen, or a link that is down."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        while True:
            await self._link.ready(max(0.0, give_up - loop.time()))
            try:
                return await self._link.call("EVAL", script.text, len(keys), *keys, *args)
            except ErrorReply as error:
                raise faults.refused(error, self.label) from error
            except StoreUnavailable:
                if loop.time() >= give_up:
                    raise

    async def command(self, *command: str | bytes | int, patience: float = 0.0) -> Any:
        """Sends one plain command, for what needs no script: reads, diagnosis. Same errors as `run`.

        With `patience`, in seconds, it waits for a link that is down and is sent again: for reads only.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        while True:
            try:
                return await self._link.call(*command)
            except ErrorReply as error:
                raise faults.refused(error, self.label) from error
            except StoreUnavailable:
                if loop.time() >= give_up:
                    raise
            await self._link.ready(max(0.0, give_up - loop.time()))

    async def subscribers(self, channels: Sequence[str]) -> dict[str, int]:
        """How many connections listen on each sharded channel now; a stopped process counts, a dead one does not.

        Raises `StoreUnavailable`, and `StoreRefused` if the server does not allow PUBSUB.
        """
        if not channels:
            return {}
        reply = cast("list[Any]", await self.command("PUBSUB", "SHARDNUMSUB", *channels))
        return {str(name.decode()): int(count) for name, count in zip(reply[::2], reply[1::2], strict=True)}

    async def _check_server(self) -> None:
        info = await self._info()
        if info:
            check_version(info, self.label)
            if info.get("role") == "slave":
                raise StoreRefused(f"Redis at {self.label} is a replica and refuses writes: connect to the primary.")
        policy = await self._eviction_policy()
        if policy is not None and policy != "noeviction" and not self._allow_eviction:
            raise StoreRefused(
                f"Redis at {self.label} has maxmemory-policy {policy!r}: under pressure it would evict leases. "
                "Set maxmemory-policy noeviction, or allow_eviction=True (BATON_ALLOW_EVICTION=1) if memory is "
                "known to suffice."
            )

    async def _info(self) -> dict[str, str]:
        try:
            text: Any = await self._link.call("INFO")
        except ErrorReply as error:
            if "NOAUTH" in str(error) or "Authentication" in str(error):
                raise faults.refused(error, self.label) from error
            logger.warning("Redis at %s does not answer INFO (%s): its version is not checked", self.label, error)
            return {}
        lines = text.decode(errors="replace").splitlines() if isinstance(text, bytes) else []
        return dict(line.split(":", 1) for line in lines if ":" in line)

    async def _eviction_policy(self) -> str | None:
        try:
            reply: Any = await self._link.call("CONFIG", "GET", "maxmemory-policy")
        except ErrorReply as error:
            logger.warning(
                "Redis at %s does not tell its eviction policy (%s): make sure it is noeviction",
                self.label,
                error,
            )
            return None
        values = cast("list[Any]", reply) if isinstance(reply, list) else []
        return str(values[1].decode()) if len(values) == 2 else None


def check_version(info: dict[str, str], label: str) -> None:
    """Raises `StoreRefused` for a server older than Redis 7.0; every Valkey is new enough."""
    if "valkey_version" in info:
        return
    version = info.get("redis_version", "")
    parts = version.split(".")
    if len(parts) >= 2 and all(part.isdigit() for part in parts[:2]) and (int(parts[0]), int(parts[1])) < _OLDEST:
        raise StoreRefused(f"Redis at {label} is version {version}: Baton needs Redis 7.0 or later, or Valkey.")
