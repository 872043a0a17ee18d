"""The form of the assistant that keeps its state in LiveKit alone: a notice board in the room's metadata.

On it are the participants with the moments in which they joined, and the latest messages. It is bounded: the oldest
messages leave first, so it never becomes an error, however long the call. Everybody in the room can read it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, JsonValue

from coordination.errors import CoordinationError
from coordination.livekit.state import RoomMetadata

logger = logging.getLogger("agents.solo")

LIMIT: Final = 60 * 1024
"""Bytes of all metadata that the board leaves room for: 64 KiB, less what the session record may take."""
MOST_PARTICIPANTS: Final = 100
KEY: Final = "solo"


class Notice(BaseModel):
    """One message on the board."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    who: str
    text: str
    at: datetime


class Board(BaseModel):
    """What stands under `solo` in the room's metadata."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    participants: dict[str, datetime] = {}
    messages: tuple[Notice, ...] = ()

    def joined(self, identity: str, at: datetime) -> Board:
        """With a participant more; one who comes back keeps the first moment."""
        everybody = {**self.participants, identity: self.participants.get(identity, at)}
        newest = sorted(everybody, key=lambda name: everybody[name])[-MOST_PARTICIPANTS:]
        return self.model_copy(update={"participants": {name: everybody[name] for name in newest}})

    def said(self, notice: Notice) -> Board:
        return self.model_copy(update={"messages": (*self.messages, notice)})

    def within(self, others: Mapping[str, JsonValue], limit: int = LIMIT) -> dict[str, JsonValue]:
        """All metadata with this board among what others keep there; the oldest messages left out until it fits."""
        board: dict[str, Any] = self.model_dump(mode="json")
        sizes = [_size(message) + 1 for message in board["messages"]]
        free = limit - _size({**others, KEY: {**board, "messages": []}})
        kept = 0
        while kept < len(sizes) and sum(sizes[-kept - 1 :]) <= free:
            kept += 1
        return {**others, KEY: {**board, "messages": board["messages"][len(sizes) - kept :]}}


class Noticeboard:
    """Writes the board in the background, one change after the other; those that wait are written together."""

    def __init__(self, metadata: RoomMetadata, room: str) -> None:
        self._metadata, self._room = metadata, room
        self._changes: list[Callable[[Board], Board]] = []
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.create_task(self._work(), name="solo: write the notice board")

    def joined(self, identity: str, at: datetime) -> None:
        self._add(lambda board: board.joined(identity, at))

    def said(self, who: str, text: str, at: datetime) -> None:
        self._add(lambda board: board.said(Notice(who=who, text=text, at=at)))

    async def close(self) -> None:
        """Writes what waits, for a moment at most: the room may be gone already."""
        try:
            async with asyncio.timeout(1):
                await self._idle.wait()
        except TimeoutError:
            logger.info("the notice board of a room that is gone was not written")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _add(self, change: Callable[[Board], Board]) -> None:
        self._changes.append(change)
        self._idle.clear()
        self._changed.set()

    async def _work(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            changes, self._changes = self._changes, []
            try:
                await self._metadata.transform(partial(_apply, changes), server=True)
            except CoordinationError as fault:
                logger.warning("the notice board was not written: %s", fault)
            if not self._changes:
                self._idle.set()


def _apply(changes: Sequence[Callable[[Board], Board]], found: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        board = Board.model_validate(found.get(KEY) or {})
    except ValueError:
        board = Board()  # somebody else's idea of it; ours is small and new
    for change in changes:
        board = change(board)
    return board.within({key: value for key, value in found.items() if key != KEY})


def _size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
