"""Keeping the session record in the room for as long as this agent holds the floor.

Written with each grant, and again whenever it is gone: because somebody replaced the metadata without it, or because
livekit-server was restarted and has forgotten the room. Then what others had put beside it is written again, too, as
far as this agent saw it: a restarted server has the name of the room, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine

from livekit import rtc

from coordination.errors import CoordinationError, StaleFence
from coordination.livekit.asking import LiveKitUnavailable
from coordination.livekit.envelope import MetadataError
from coordination.livekit.record import RoomRecord, SessionRecord
from coordination.livekit.room_events import on_room

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[object, object, None], str], object]
_ATTEMPTS = 3


class RecordKeeper:
    """One agent's hand on the record. `mine` is what it would write now; None while it does not hold the floor."""

    def __init__(self, room: rtc.Room, record: RoomRecord, *, mine: Callable[[], SessionRecord | None], spawn: Spawn):
        self._room, self._record, self._mine, self._spawn = room, record, mine, spawn
        self._sid = ""
        self._seen: SessionRecord = SessionRecord()
        self._ends: list[Callable[[], None]] = []

    def begin(self) -> None:
        self._see(self._room.metadata)
        self._spawn(self._learn_sid(), "learn the room's sid")
        self._ends = [
            on_room(self._room, "room_metadata_changed", self._on_changed),
            on_room(self._room, "reconnected", self._on_reconnected),
        ]

    @property
    def fence(self) -> int | None:
        """The fence that the record was last seen with; None in a call that nobody has begun."""
        return self._seen.fence

    def close(self) -> None:
        """Keeps nothing any more. Closing twice does no harm."""
        while self._ends:
            self._ends.pop()()

    async def write(self) -> None:
        """Writes what is to stand there now, and once more what the server has forgotten. Never raises on purpose."""
        for attempt in range(_ATTEMPTS):
            mine = self._mine()
            if mine is None:
                return
            try:
                sid = await self._record.sid()
                lost = bool(self._sid) and sid != self._sid
                await self._record.write(mine, beside=self._seen.foreign if lost else None)
                self._sid = sid
            except LiveKitUnavailable as fault:
                level = logging.WARNING if attempt == _ATTEMPTS - 1 else logging.DEBUG
                logger.log(level, "the session record was not written: %s", fault)
            except StaleFence:
                return  # somebody else holds the floor by now, and writes it
            except CoordinationError as fault:
                logger.warning("the session record was not written: %s", fault)
                return
            else:
                return

    async def _learn_sid(self) -> None:
        self._sid = self._sid or await self._room.sid

    def _on_changed(self, _old: str, new: str) -> None:
        mine = self._mine()
        found = self._see(new)
        if mine is not None and (found is None or found.fence is None):
            self._spawn(self.write(), "write the session record again")

    def _on_reconnected(self) -> None:
        if self._mine() is not None:
            self._spawn(self.write(), "write the session record after a reconnect")

    def _see(self, text: str) -> SessionRecord | None:
        """Remembers what stands beside the record, so that it can be written again."""
        try:
            found = SessionRecord.parse(text, room=self._room.name)
        except MetadataError as fault:
            logger.warning("the session record cannot be read: %s", fault)
            return None
        if found is not None:
            self._seen = found
        return found
