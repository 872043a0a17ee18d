"""Faults of the servers: Redis away, hung, emptied, set back; livekit-server restarted. Only servers started here."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from coordination.dev.livekit_server import LiveKitServer
from coordination.dev.valkey import EmbeddedValkey
from coordination.errors import StoreUnavailable
from coordination.store.store import Store
from coordination.testing.faults.fault import Fault, FaultImpossible, FaultKind, nothing

_DUMP: Final = "dump.rdb"
"""What the server reads at its start, if it is there."""
_NAME: Final = "Redis"
_PATIENCE: Final = 10.0
"""Seconds for a command that makes a fault: a machine with many calls on it may not answer within a client's second."""


class RedisFaults:
    """Faults of one embedded server. It must not be given a dump file name or an append-only file of its own."""

    def __init__(self, server: EmbeddedValkey) -> None:
        self._server = server
        self._old: Path | None = None
        self._replica: EmbeddedValkey | None = None

    def stop(self, *, lasting: timedelta) -> Fault:
        """Away for so long, as during an upgrade; it comes back with its data."""
        return Fault(kind=FaultKind.REDIS_STOP, target=_NAME, begin=self._stop_saved, end=self._start, lasting=lasting)

    def hang(self, *, lasting: timedelta) -> Fault:
        """Its connections stay open and nothing is answered."""

        async def begin() -> None:
            self._server.pause()

        async def end() -> None:
            self._server.resume()

        return Fault(kind=FaultKind.REDIS_HANG, target=_NAME, begin=begin, end=end, lasting=lasting)

    def restart(self) -> Fault:
        """A quick restart with its data; all connections are new."""

        async def begin() -> None:
            await self._stop_saved()
            await self._start()

        return Fault(kind=FaultKind.REDIS_RESTART, target=_NAME, begin=begin)

    def wipe(self) -> Fault:
        """FLUSHALL, with connections and subscriptions left in place."""

        async def begin() -> None:
            await self.command("FLUSHALL", "SYNC")

        return Fault(kind=FaultKind.REDIS_WIPE, target=_NAME, begin=begin)

    def restart_empty(self) -> Fault:
        async def begin() -> None:
            self._server.kill()
            await asyncio.to_thread(self._dump.unlink, missing_ok=True)
            await self._start()

        return Fault(kind=FaultKind.REDIS_EMPTY, target=_NAME, begin=begin)

    async def remember(self) -> None:
        """Keeps the data of now for `restart_old`."""
        await self.command("SAVE")
        self._old = self._server.directory / "old.rdb"
        await asyncio.to_thread(shutil.copyfile, self._dump, self._old)

    def restart_old(self) -> Fault:
        """Restarted with what `remember` kept. Raises `FaultImpossible` when it strikes if nothing was."""

        async def begin() -> None:
            if self._old is None:
                raise FaultImpossible("There is no older state of Redis to come back with: call `remember` first.")
            self._server.kill()
            await asyncio.to_thread(shutil.copyfile, self._old, self._dump)
            await self._start()

        return Fault(kind=FaultKind.REDIS_OLD, target=_NAME, begin=begin)

    async def replicate(self) -> None:
        """Starts a replica for `fail_over`, in place of the one before; returns when it is in step."""
        await self.close()
        self._replica = await self._server.replicate()

    def fail_over(self) -> Fault:
        """The server dies and its replica is promoted, at the same address. What was not replicated is lost.

        Raises `FaultImpossible` when it strikes if there is no replica: call `replicate` first.
        """

        async def begin() -> None:
            if self._replica is None:
                raise FaultImpossible("There is no replica of Redis to be promoted: call `replicate` first.")
            replica, self._replica = self._replica, None
            self._server.fail_over(replica)

        return Fault(kind=FaultKind.REDIS_FAILOVER, target=_NAME, begin=begin)

    async def close(self) -> None:
        """Ends a replica that was not promoted."""
        replica, self._replica = self._replica, None
        if replica is not None:
            await replica.stop()

    def drop_subscriptions(self) -> Fault:
        """Closes all connections that subscribe to something, of all clients at once."""

        async def begin() -> None:
            await self.command("CLIENT", "KILL", "TYPE", "pubsub")

        return Fault(kind=FaultKind.SUBSCRIPTIONS, target="all subscriptions", begin=begin)

    @retry(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_delay(_PATIENCE),
        wait=wait_fixed(0.05),
        reraise=True,
    )
    async def command(self, *command: str) -> Any:
        """Sends one command on a connection of its own, again while Redis does not answer: it must bear repetition.

        Raises `StoreUnavailable` after 10 s without an answer.
        """
        store = Store(self._server.url)
        await store.open()
        try:
            return await store.command(*command)
        finally:
            await store.close()

    @property
    def _dump(self) -> Path:
        return self._server.directory / _DUMP

    async def _stop_saved(self) -> None:
        await self.command("SAVE")
        self._server.kill()

    async def _start(self) -> None:
        if not self._server.running:
            await self._server.start()


def restart_livekit(server: LiveKitServer, *, away: timedelta = timedelta(0)) -> Fault:
    """livekit-server is killed and started again with the same address and key; all rooms begin anew."""

    async def begin() -> None:
        server.kill()
        if not away:
            await server.start()

    async def end() -> None:
        await server.start()

    return Fault(
        kind=FaultKind.LIVEKIT_RESTART,
        target="livekit-server",
        begin=begin,
        end=end if away else nothing,
        lasting=away,
    )
