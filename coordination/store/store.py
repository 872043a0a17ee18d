"""The store: runs scripts on the server that holds their keys.

`run` is safe to repeat: every script of this library is idempotent by request id, version or fence, so a call whose
reply was lost is sent again once the link is back, until its patience ends. On cancellation nothing is repeated; the
command may have run, and the caller's own clean-up (a cancel script) goes out on the same connection, behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, cast

from coordination.errors import StoreRefused, StoreUnavailable
from coordination.store import faults
from coordination.store.keys import Catalogue
from coordination.store.link import Late, Link
from coordination.store.scripts import Script
from coordination.store.subscriber import Subscriptions
from coordination.store.targets import Target, topology_of
from coordination.store.topology import PAUSE
from coordination.store.wire import ErrorReply, Hole, Template

logger = logging.getLogger("coordination.store")

PATIENCE: Final = 2.0
"""Seconds that one call may take altogether, reconnects included: the default TTL of the floor. A call that is later
than that could only report what its lease's own deadline has said already."""

_OLDEST: Final = (7, 0)


class Store:
    """Connections to a Redis or Valkey, or a Cluster of them, and the only way to run a script there."""

    def __init__(self, target: Target, *, prefix: str = "baton", allow_eviction: bool = False) -> None:
        """Nothing is connected yet. Raises `InvalidSettings` for a URL that is none."""
        self.topology = topology_of(target)
        self._link = self.topology.link
        self._allow_eviction = allow_eviction
        self.keys = Catalogue(prefix)

    @property
    def subscriber(self) -> Subscriptions:
        """The process's subscriptions."""
        return self.topology.subscriptions

    @property
    def label(self) -> str:
        """Where the server is, without credentials."""
        return self.topology.label

    @property
    def connected(self) -> bool:
        return self.topology.connected

    async def open(self) -> None:
        """Connects and checks that each primary can be relied on.

        Raises `StoreUnavailable` if it does not answer; `StoreRefused` if it is older than Redis 7.0, a replica,
        refuses the credentials, or evicts keys (every key has a TTL, so all of them could be evicted).
        """
        try:
            await self.topology.open()
            await self._check_servers()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self.topology.close()

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | bytes | int] = (),
        *,
        patience: float = PATIENCE,
    ) -> Any:
        """Runs the script in one round trip, on the primary of its keys, and returns its reply.

        Raises `StoreRefused` if the server refuses, `StoreUnavailable` if it could not be reached within `patience`
        seconds; then the script may or may not have run.
        """
        try:
            return await self._link(keys[0]).call("EVALSHA", script.sha, len(keys), *keys, *args)
        except StoreUnavailable:
            if patience <= 0:
                raise
        except ErrorReply as error:
            if not str(error).startswith("NOSCRIPT") and not await self.topology.follow(error, keys[0]):
                raise faults.refused(error, self.label) from error
        return await self._send_again(keys[0], ("EVAL", script.text, len(keys), *keys, *args), patience)

    def send(
        self, script: Script, keys: Sequence[str], args: Sequence[str | bytes | int] = (), *, late: Late | None = None
    ) -> asyncio.Future[Any]:
        """Sends the script and returns the future of its reply. A caller that has to see the reply even when it is
        cancelled gives `late`.

        Raises `StoreUnavailable` at once if the link is down. Nothing is repeated; `run` is what to do about a failure.
        """
        return self._link(keys[0]).call("EVALSHA", script.sha, len(keys), *keys, *args, late=late)

    def template(self, script: Script, keys: Sequence[str], args: Sequence[str | Hole]) -> Template:
        """For a script that is sent again and again with other numbers."""
        return Template("EVALSHA", script.sha, str(len(keys)), *keys, *args)

    def send_packed(self, key: str, data: bytes, *, late: Late | None = None) -> asyncio.Future[Any]:
        """As `send`, for a template that was filled in; `key` is one of its keys."""
        return self._link(key).send(data, late)

    async def run_replicated(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | bytes | int],
        *,
        replicas: int,
        within: float,
        patience: float = PATIENCE,
    ) -> tuple[Any, int]:
        """Runs the script on a connection of its own: its reply, and how many replicas have what it wrote.

        Returns as soon as there are `replicas`, else after `within` seconds (twice that while others wait as well).
        Raises as `run`.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        text: tuple[str, str] = ("EVALSHA", script.sha)
        while True:
            try:
                link = self.topology.replicated(keys[0])
                await link.ready(max(0.0, give_up - loop.time()))
                return await link.write((*text, len(keys), *keys, *args), replicas, within)
            except ErrorReply as error:
                if str(error).startswith("NOSCRIPT"):
                    text = ("EVAL", script.text)
                elif not await self.topology.follow(error, keys[0]):
                    raise faults.refused(error, self.label) from error
                elif loop.time() >= give_up:
                    raise faults.given_up(error, self.label) from error
            except StoreUnavailable:
                if loop.time() >= give_up:
                    raise
                await asyncio.sleep(PAUSE)

    async def command(self, *command: str | bytes | int, patience: float = 0.0, key: str | None = None) -> Any:
        """Sends one plain command, for what needs no script: reads, diagnosis. Same errors as `run`.

        In a Cluster it goes to the primary of its key; `key` names one for a command that carries none (TIME), without
        it any primary answers. With `patience`, in seconds, it waits for a link that is down and is sent again: for
        reads only.
        """
        place = key or _key_of(command)
        link = self._link(place)
        # A link that is not made before its first use is not down.
        patience = PATIENCE if link.starting else patience
        try:
            return await link.call(*command)
        except StoreUnavailable:
            if patience <= 0:
                raise
        except ErrorReply as error:
            if not await self.topology.follow(error, place):
                raise faults.refused(error, self.label) from error
            # It was not executed: sending it again, where the refusal pointed, is no repetition.
            patience = max(patience, PATIENCE)
        return await self._send_again(place, command, patience)

    async def time(self, key: str) -> int:
        """The clock of the server that holds the key, in microseconds since 1970."""
        seconds, micros = await self.command("TIME", patience=PATIENCE, key=key)
        return int(seconds) * 1_000_000 + int(micros)

    async def _send_again(self, key: str | None, command: tuple[str | bytes | int, ...], patience: float) -> Any:
        """The slow path: a script that the server has not seen, a link that is down, a primary that moved."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + patience
        while True:
            await self.topology.ready(key, max(0.0, give_up - loop.time()))
            try:
                return await self.topology.send(key, *command)
            except ErrorReply as error:
                if not await self.topology.follow(error, key):
                    raise faults.refused(error, self.label) from error
                if loop.time() >= give_up:
                    raise faults.given_up(error, self.label) from error
            except StoreUnavailable:
                if loop.time() >= give_up:
                    raise

    async def subscribers(self, channels: Sequence[str]) -> dict[str, int]:
        """How many connections listen on each sharded channel now; a stopped process counts, a dead one does not.

        Raises `StoreUnavailable`, and `StoreRefused` if the server does not allow PUBSUB.
        """
        groups: dict[Link, list[str]] = {}
        for channel in channels:
            groups.setdefault(self._link(channel), []).append(channel)
        counts = await asyncio.gather(*(self._count(group) for group in groups.values()))
        return {channel: count for group in counts for channel, count in group.items()}

    async def _count(self, channels: list[str]) -> dict[str, int]:
        """Of channels whose slots have one primary."""
        reply = cast("list[Any]", await self.command("PUBSUB", "SHARDNUMSUB", *channels, key=channels[0]))
        return {str(name.decode()): int(count) for name, count in zip(reply[::2], reply[1::2], strict=True)}

    async def _check_servers(self) -> None:
        answers = await self.topology.inquire(("INFO",), ("CONFIG", "GET", "maxmemory-policy"))
        for label, (info, policy) in answers.items():
            _check_info(info, label)
            _check_policy(policy, label, self._allow_eviction)


def _check_info(reply: Any, label: str) -> None:
    if isinstance(reply, Exception):
        if "NOAUTH" in str(reply) or "Authentication" in str(reply):
            raise faults.refused(reply, label) from reply
        logger.warning("Redis at %s does not answer INFO (%s): its version is not checked", label, reply)
        return
    lines = reply.decode(errors="replace").splitlines() if isinstance(reply, bytes) else []
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    check_version(info, label)
    if info.get("role") == "slave":
        raise StoreRefused(f"Redis at {label} is a replica and refuses writes: connect to the primary.")


def _check_policy(reply: Any, label: str, allow_eviction: bool) -> None:
    if isinstance(reply, Exception):
        logger.warning("Redis at %s does not tell its eviction policy (%s): make sure it is noeviction", label, reply)
        return
    values = cast("list[Any]", reply) if isinstance(reply, list) else []
    policy = str(values[1].decode()) if len(values) == 2 else "noeviction"
    if policy != "noeviction" and not allow_eviction:
        raise StoreRefused(
            f"Redis at {label} has maxmemory-policy {policy!r}: under pressure it would evict leases. "
            "Set maxmemory-policy noeviction, or allow_eviction=True (BATON_ALLOW_EVICTION=1) if memory is "
            "known to suffice."
        )


_KEYLESS: Final = frozenset(
    {"ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "FLUSHALL", "INFO", "KEYS", "PING", "PUBSUB", "ROLE"}
    | {"SCAN", "SCRIPT", "TIME", "WAIT"}
)


def _key_of(command: Sequence[str | bytes | int]) -> str | None:
    """The key or sharded channel that a command is routed by."""
    verb = str(command[0]).upper()
    if verb in _KEYLESS or len(command) == 1:
        return None
    place = command[3 if verb.startswith("EVAL") else 1]
    return place.decode() if isinstance(place, bytes) else str(place)


def check_version(info: dict[str, str], label: str) -> None:
    """Raises `StoreRefused` for a server older than Redis 7.0; every Valkey is new enough."""
    if "valkey_version" in info:
        return
    version = info.get("redis_version", "")
    parts = version.split(".")
    if len(parts) >= 2 and all(part.isdigit() for part in parts[:2]) and (int(parts[0]), int(parts[1])) < _OLDEST:
        raise StoreRefused(f"Redis at {label} is version {version}: Baton needs Redis 7.0 or later, or Valkey.")
