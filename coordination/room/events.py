"""What happened in a room: joins, grants, releases, handoffs …, with fence and reason; never what was said.

Each is recorded by the script that made it happen, so the history holds nothing that did not. Other services follow it:
a sink is whatever consumes `Events.follow`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from coordination.ids import check_name
from coordination.room.changes import Changes, Kind
from coordination.room.clock import moment
from coordination.store.keys import UNATTENDED_TTL, RoomKeys
from coordination.store.scripts import Script
from coordination.store.store import PATIENCE, Store

PUBLISH: Final = Script.load("events/publish")
UNATTENDED_MS: Final = int(UNATTENDED_TTL.total_seconds() * 1000)


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

    def __init__(self, store: Store, keys: RoomKeys, changes: Changes) -> None:
        self._store, self._keys, self._changes = store, keys, changes

    async def publish(self, kind: str, *, agent: str = "", role: str = "", fence: int = 0, reason: str = "") -> None:
        """Records an event of the application. `reason` is one short line, and never a transcript."""
        check_name(kind, "kind of event")
        args = (self._keys.everyone, kind, agent, role, fence or "", " ".join(reason.split())[:200], UNATTENDED_MS)
        await self._store.run(PUBLISH, (self._keys.events, self._keys.roster), args)

    async def read(self, *, since: str | None = None) -> tuple[Event, ...]:
        """The events in order, all that are kept or those behind the id `since`."""
        start = "-" if since is None else f"({since}"
        entries = cast(
            "list[Any]", await self._store.command("XRANGE", self._keys.events, start, "+", patience=PATIENCE)
        )
        return tuple(_event(entry_id.decode(), fields) for entry_id, fields in entries)

    async def recent(self, window: timedelta) -> tuple[Event, ...]:
        """The events of the last `window`, by the server's clock: this process's own may be an hour off."""
        since = moment(await self._store.time(self._keys.events)) - window
        return tuple(event for event in await self.read() if event.at > since)

    async def follow(self, *, since: str | None = None) -> AsyncIterator[Event]:
        """Yields each event once, in order: those behind `since`, or all that are kept, and then as they happen.

        A follower that falls more than a thousand events behind misses the oldest.
        """
        last = since

        async def unseen() -> tuple[Event, ...]:
            return await self.read(since=last)

        async for events in self._changes.watch(Kind.EVENTS, unseen):
            for event in events:
                last = event.id
                yield event


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
