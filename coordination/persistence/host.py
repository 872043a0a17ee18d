"""The file outbox of a host, delivered by the processes that outlive calls.

A job delivers what it saves while it runs. What a killed one left, or one that ended without the backend, lies in the
file until somebody delivers it: each tenant's with that tenant's token, whether another call of theirs comes or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Final

from coordination.errors import CoordinationError
from coordination.ids import Tenant
from coordination.persistence.client import BackendClient
from coordination.persistence.erasures import Erasures, nothing_else
from coordination.persistence.errors import BackendError
from coordination.persistence.outbox.file import FileOutbox
from coordination.persistence.settings import PersistenceSettings

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = timedelta(seconds=5)
"""How often the file is looked for, then for tenants in it, and the backend is asked what it has erased."""


async def deliver_file(settings: PersistenceSettings, *, only: str | None = None) -> None:
    """Delivers, from the moment there is a file, what is in it, and removes what the backend has erased. For ever.

    `only` is the tenant of all of a worker's calls, if it has one: others are left to workers that have their token.
    """

    async def deliver() -> None:
        if not settings.outbox_file.expanduser().exists():
            return
        async with AsyncExitStack() as parts:
            file = await FileOutbox(settings.outbox_file.expanduser(), sync=settings.outbox_sync).open()
            parts.push_async_callback(file.close)
            served: dict[Tenant, Erasures] = {}
            while True:
                for tenant in _wanted(await file.tenants(), only) - served.keys():
                    client = await parts.enter_async_context(BackendClient.open(settings, tenant=tenant))
                    assert client.outbox is not None
                    served[tenant] = Erasures(client, client.outbox, forget=nothing_else)
                for erasures in served.values():
                    with suppress(BackendError):
                        await erasures.follow()
                await asyncio.sleep(LOOK_EVERY.total_seconds())

    await again_and_again(deliver, of="calls without coordination", every=LOOK_EVERY)


async def again_and_again(deliver: Callable[[], Awaitable[None]], *, of: str, every: timedelta) -> None:
    """Begins a delivery again whenever it has ended or failed."""
    while True:
        try:
            await deliver()
        except CoordinationError as fault:
            logger.warning("what %s have left is not delivered yet: %s", of, fault)
        except Exception:
            logger.exception("what %s have left is not delivered yet", of)
        await asyncio.sleep(every.total_seconds())


def _wanted(found: Collection[Tenant], only: str | None) -> set[Tenant]:
    return {tenant for tenant in found if only in (None, tenant)}
