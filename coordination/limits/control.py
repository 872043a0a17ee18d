"""What operators decide at run time: limits that are set, tenants that are blocked. It holds for all processes at once.

The decisions are permanent keys: they outlive restarts of every worker. A change is pushed; a process that missed the
push learns of it when its subscription is restored, or within half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from coordination.errors import StoreError
from coordination.ids import check_name
from coordination.store.scripts import Script
from coordination.store.store import Store

logger = logging.getLogger("coordination.limits")

READ: Final = Script.load("limits/control")
DECIDE: Final = Script.load("limits/decide")

LOOK_EVERY: Final = 30.0
"""Seconds after which a push that was missed is made up for."""

Overrides = dict[str, dict[str, Any]]
"""`provider/limit` -> what is different."""


class Control:
    """The decisions, as this process knows them."""

    def __init__(self, store: Store, on_change: Callable[[], None]) -> None:
        self._store = store
        self._keys = store.keys.limit_control
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._starting = asyncio.Lock()
        self.loaded = False
        self.overrides: Overrides = {}
        self.blocked: dict[str, str] = {}
        """Tenant -> why."""

    async def start(self) -> None:
        """Reads the decisions and follows them from then on. Without Redis it goes on trying."""
        async with self._starting:
            if self.loaded:
                return
            try:
                await self.read()
            except StoreError as error:
                logger.warning("blocked tenants and set limits are not known: %s", error)
            self._store.subscriber.on_restored.append(self._changed.set)
            self._task = asyncio.create_task(self._follow(), name="baton-limit-control")
            self.loaded = True

    async def _follow(self) -> None:
        try:
            await self._store.subscriber.subscribe(self._keys.channel, lambda _: self._changed.set())
        except StoreError as error:
            logger.warning("decisions on limits arrive late: %s", error)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.read()
            except StoreError as error:
                logger.warning("blocked tenants and set limits may be old: %s", error)

    async def read(self) -> None:
        """Raises `StoreError`."""
        keys = (self._keys.overrides, self._keys.blocked)
        overrides, blocked = await self._store.run(READ, keys, patience=0)
        known = (self.overrides, self.blocked)
        self.overrides = {name: json.loads(value) for name, value in _pairs(overrides)}
        self.blocked = dict(_pairs(blocked))
        if known != (self.overrides, self.blocked):
            self._on_change()

    async def set(self, provider: str, limit: str, values: dict[str, Any] | None) -> bool:
        """Sets a limit over what is configured; None takes it back. True if that changed anything."""
        name = f"{check_name(provider, 'provider')}/{check_name(limit, 'limit')}"
        return await self._decide(self._keys.overrides, name, json.dumps(values, sort_keys=True) if values else "")

    async def block(self, tenant: str, reason: str) -> bool:
        return await self._decide(self._keys.blocked, check_name(tenant, "tenant"), reason or "blocked")

    async def unblock(self, tenant: str) -> bool:
        return await self._decide(self._keys.blocked, check_name(tenant, "tenant"), "")

    async def _decide(self, key: str, name: str, value: str) -> bool:
        changed = await self._store.run(DECIDE, (key,), (name, value, self._keys.channel))
        await self.read()
        return bool(changed)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _pairs(flat: Sequence[bytes]) -> list[tuple[str, str]]:
    texts = [each.decode() for each in flat]
    return list(zip(texts[::2], texts[1::2], strict=True))
