"""Which calls are being saved, so that the record of a call whose agents are all lost is ended by somebody else.

The list lies beside the tenant's outbox. It says no more than what a record begins with; what was said is in the turn
log of the room for as long as that lives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, cast

from pydantic import ValidationError

from coordination.ids import RoomName, Tenant
from coordination.persistence.values import SavedCall
from coordination.room.clock import ms
from coordination.store.keys import CALLS_TTL
from coordination.store.scripts import Script
from coordination.store.store import Store

logger = logging.getLogger(__name__)

_ENTER: Final = Script.load("outbox/call")


class OpenCalls:
    """One tenant's list. Every method raises `StoreError` when Redis cannot be used."""

    def __init__(self, store: Store, *, tenant: Tenant) -> None:
        self._store = store
        self._key, self._erasures = store.keys.outbox(tenant).calls, store.keys.outbox(tenant).erasures

    async def enter(self, call: SavedCall) -> None:
        """Notes the call; again for the same one changes nothing."""
        await self._store.run(_ENTER, (self._key,), (call.session, call.model_dump_json(), ms(CALLS_TTL)))

    async def leave(self, session: RoomName) -> None:
        """Its record is complete."""
        await self._store.command("HDEL", self._key, session)

    async def erased_until(self) -> str | None:
        """Cursor of the backend's feed up to which erasures were carried out; None if nobody has for long."""
        found: bytes | None = await self._store.command("GET", self._erasures)
        return None if found is None else found.decode()

    async def note_erased(self, cursor: str) -> None:
        """All erasures up to there were carried out."""
        await self._store.command("SET", self._erasures, cursor, "PX", ms(CALLS_TTL))

    async def read(self) -> Sequence[SavedCall]:
        """All of them. An entry of a release that this one does not understand is left to that release."""
        reply: Any = await self._store.command("HVALS", self._key)
        found: list[SavedCall] = []
        for text in cast("list[bytes]", reply):
            try:
                found.append(SavedCall.model_validate_json(text))
            except ValidationError:
                logger.warning("a call that is being saved cannot be read, and is left to the release that wrote it")
        return found
