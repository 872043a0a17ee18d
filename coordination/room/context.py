"""Shared context: one JSON document per room, or per any other scope, with a version.

A version follows the rule of fences: it grows even over a failover, so no version names two contents. A write is a
merge patch (RFC 7396) or a compare-and-set; with a lease it is refused by the script if the fence of that is old.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

from coordination.errors import ContextConflict, ContextTooLarge, InvalidArgument, StaleFence
from coordination.ids import new_request_id
from coordination.leases.lease import Lease
from coordination.metrics import METRICS
from coordination.room.changes import Changes, Kind
from coordination.room.memory import Memory
from coordination.room.patch import merge_patch
from coordination.store.keys import UNATTENDED_TTL, RoomKeys
from coordination.store.scripts import Script
from coordination.store.store import PATIENCE, Store

PUT: Final = Script.load("context/put")
MAX_BYTES: Final = 64 * 1024
ATTEMPTS: Final = 50
"""Writers of one document that get in each other's way this often in a row have no business sharing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A context at one version; version 0 is the empty one that nobody has written yet."""

    data: dict[str, Any]
    version: int


class SharedContext:
    """The document of one scope."""

    def __init__(
        self,
        store: Store,
        keys: RoomKeys,
        changes: Changes,
        *,
        name: str,
        ttl: timedelta = UNATTENDED_TTL,
        memory: Memory | None = None,
    ) -> None:
        self._store, self._keys, self._changes, self._name = store, keys, changes, name
        self._memory = memory
        self._ttl_ms = int(ttl.total_seconds() * 1000)
        if self._ttl_ms <= 0:
            raise InvalidArgument(f"A TTL of {ttl} for the context of {name} is not possible: it must be positive.")
        self._seen = 0

    async def read(self) -> Snapshot:
        """The newest document."""
        version, text = cast(
            "list[bytes | None]",
            await self._store.command("HMGET", self._keys.context, "version", "document", patience=PATIENCE),
        )
        if version is None or text is None:
            return Snapshot(data={}, version=0)
        self._saw(int(version), text.decode())
        return Snapshot(data=json.loads(text), version=int(version))

    def _saw(self, version: int, text: str) -> None:
        self._seen = max(self._seen, version)
        if self._memory is not None:
            self._memory.saw_context(version, text)

    async def update(
        self, patch: Mapping[str, Any], *, lease: Lease | None = None, version: int | None = None
    ) -> Snapshot:
        """Merges `patch` (RFC 7396) into the document and returns the result.

        Without `version` a concurrent change is merged with; with it the write happens only at that version, else
        `ContextConflict`. Raises `StaleFence` if `lease` is no longer the floor's, `InvalidArgument` for what is no
        JSON object, `ContextTooLarge` above 64 KiB. Whatever is raised, nothing was written.
        """
        checked: Any = patch
        if not isinstance(checked, Mapping):
            raise InvalidArgument(f"A context is a JSON object; a {type(patch).__name__} is none. Pass a dict.")
        return await self._change(lambda data: merge_patch(data, patch), lease=lease, version=version)

    async def transform(
        self, change: Callable[[dict[str, Any]], dict[str, Any]], *, lease: Lease | None = None
    ) -> Snapshot:
        """Applies a pure function to the newest document, repeatedly if others write meanwhile. Raises as `update`."""
        return await self._change(change, lease=lease, version=None)

    async def forget(self) -> None:
        """Removes the document, for good; a change that is under way is made again on an empty one."""
        await self._store.command("DEL", self._keys.context)

    async def read_along(self) -> None:
        """Reads each change until cancelled, so that this process could put it back; waits while Redis is away."""
        async for _ in self.watch():
            pass

    def watch(self) -> AsyncIterator[Snapshot]:
        """The document now, and after each change; versions may be skipped, never the latest."""
        return self._changes.watch(Kind.CONTEXT, self.read)

    async def _change(
        self, change: Callable[[dict[str, Any]], dict[str, Any]], *, lease: Lease | None, version: int | None
    ) -> Snapshot:
        for attempt in range(ATTEMPTS):
            current = await self.read()
            if version is not None and current.version != version:
                raise ContextConflict(self._name, version, current.version)
            text = self._encode(change(current.data))
            outcome, value = await self._put(current.version, text, lease)
            if outcome == 1:
                self._saw(value, text)
                return Snapshot(data=json.loads(text), version=value)
            if outcome == 2 and lease is not None:
                METRICS.refused_write("context")
                raise StaleFence(f"the context of {self._name}", lease.fence, value)
            if version is not None:
                raise ContextConflict(self._name, version, value)
            await asyncio.sleep(random.uniform(0, 0.002 * min(attempt + 1, 10)))
        raise ContextConflict(self._name, 0, self._seen)

    async def _put(self, expected: int, text: str, lease: Lease | None) -> tuple[int, int]:
        keys = (self._keys.context, self._keys.roster, self._keys.floor.lease)
        fence = "" if lease is None else str(int(lease.fence))
        args = (self._keys.everyone, expected, text, self._seen, fence, self._ttl_ms, new_request_id())
        return await self._store.run(PUT, keys, args)

    def _encode(self, data: dict[str, Any]) -> str:
        try:
            text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            size = len(text.encode())
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"The context of {self._name} must be JSON: {error}. Pass plain values.") from error
        if not text.startswith("{"):
            raise InvalidArgument(f"The context of {self._name} is a JSON object; a {type(data).__name__} is none.")
        if size > MAX_BYTES:
            sizes = {key: len(json.dumps(value)) for key, value in data.items()}
            largest = ", ".join(f"{key!r} ({sizes[key]})" for key in sorted(sizes, key=lambda k: -sizes[k])[:3])
            raise ContextTooLarge(
                f"The context of {self._name} would have {size} bytes, more than {MAX_BYTES}; largest keys: {largest}. "
                "Nothing was written. Keep large data in the backend and its id here."
            )
        return text
