"""What happened in a room: joins, grants, releases, handoffs …, with fence and reason; never what was said.

Each is recorded by the script that made it happen, so the history holds nothing that did not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from coordination.room.clock import moment
from coordination.store.keys import RoomKeys
from coordination.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry; `kind` is the word of the script: grant, release, expire, revoke, silence, offer, claimed, ready,
    commit, abort, join, leave …"""

    id: str
    kind: str
    agent: str
    role: str
    fence: int
    reason: str
    at: datetime


class Events:
    """The last thousand events, or so, of one room."""

    def __init__(self, store: Store, keys: RoomKeys) -> None:
        self._store, self._keys = store, keys

    async def read(self, *, since: str | None = None) -> tuple[Event, ...]:
        """The events in order, all that are kept or those behind the id `since`."""
        start = "-" if since is None else f"({since}"
        entries = cast("list[Any]", await self._store.command("XRANGE", self._keys.events, start, "+"))
        return tuple(_event(entry_id.decode(), fields) for entry_id, fields in entries)


def _event(entry_id: str, fields: list[bytes]) -> Event:
    values = {fields[i].decode(): fields[i + 1].decode() for i in range(0, len(fields), 2)}
    return Event(
        id=entry_id,
        kind=values.get("kind", ""),
        agent=values.get("agent", ""),
        role=values.get("role", ""),
        fence=int(values.get("fence") or 0),
        reason=values.get("reason", ""),
        at=moment(int(values.get("at") or 0)),
    )
