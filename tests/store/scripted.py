"""The servers that the contract of the scripts is tried on: the embedded Valkey, fakeredis, and a Redis on the PATH.

fakeredis has no sharded pub/sub on a socket, so the store itself cannot run on it; its scripts can.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakeredis
from redis.asyncio import Redis

from coordination.dev.valkey import EmbeddedValkey
from coordination.store import Script

REDIS = shutil.which("redis-server")
SERVERS = ("valkey", "fakeredis", *(("redis",) if REDIS else ()))


@dataclass(frozen=True, slots=True)
class Scripted:
    """A server, as a script sees it."""

    client: Redis
    shebang: bool

    async def run(self, name: str, keys: Sequence[str], *args: str | int) -> Any:
        text = Script.load(name).text
        # fakeredis takes the first line of a script for Lua.
        return await self.client.eval(text if self.shebang else f"--{text}", len(keys), *keys, *args)


@asynccontextmanager
async def scripted(kind: str) -> AsyncIterator[Scripted]:
    """An empty server of that kind."""
    if kind == "fakeredis":
        async with fakeredis.FakeAsyncRedis() as client:
            yield Scripted(client, shebang=False)
        return
    async with (
        EmbeddedValkey(program=Path(REDIS) if kind == "redis" and REDIS else None) as server,
        Redis.from_url(server.url) as client,
    ):
        yield Scripted(client, shebang=True)
