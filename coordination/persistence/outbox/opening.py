"""Which outbox a process has: Redis where Redis is configured, a file where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordination.ids import Tenant
from coordination.persistence.settings import PersistenceSettings

if TYPE_CHECKING:
    from coordination.persistence.outbox.file import FileOutbox
    from coordination.persistence.outbox.stream import StreamOutbox


async def open_outbox(
    settings: PersistenceSettings, *, redis_url: str | None, tenant: Tenant, prefix: str = "baton"
) -> FileOutbox | StreamOutbox:
    """Opens it. Raises `OutboxUnavailable` if it cannot be used, `OutboxFormat` for another release's."""
    if redis_url is not None:
        # An agent without Redis runs where the client is not even installed.
        from coordination.persistence.outbox.stream import StreamOutbox

        return await StreamOutbox.at(redis_url, tenant=tenant, prefix=prefix).open()
    from coordination.persistence.outbox.file import FileOutbox

    return await FileOutbox(settings.outbox_file.expanduser(), tenant=tenant, sync=settings.outbox_sync).open()
