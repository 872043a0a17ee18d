"""The turn log: what was said, by whom, under which fence. A new holder rebuilds its chat context from it.

Ids are made of fence and sequence, so turns sort as they were said: an utterance that began under the previous holder
and is written by it after the floor moved still stands before everything that the new holder says.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, cast

from coordination.errors import InvalidArgument, InvalidName, StaleFence, StoreUnavailable
from coordination.ids import AgentId, Fence, RoleName, TurnId, new_request_id
from coordination.metrics import METRICS
from coordination.room.changes import Changes, Kind
from coordination.room.clock import moment
from coordination.room.memory import Memory
from coordination.room.texts import MAX_TEXT
from coordination.store.keys import UNATTENDED_TTL, RoomKeys
from coordination.store.scripts import Script
from coordination.store.store import Store

logger = logging.getLogger("coordination.room")

APPEND: Final = Script.load("turns/append")
PLAYED: Final = Script.load("turns/played")
READ: Final = Script.load("turns/read")
UNSAVED: Final = Script.load("turns/unsaved")
SAVED: Final = Script.load("turns/saved")

MAX_TURNS: Final = 2000
"""The oldest leave first; an hour of quick conversation has about 700."""
MAX_BYTES: Final = 1024 * 1024
UNATTENDED_MS: Final = int(UNATTENDED_TTL.total_seconds() * 1000)


class Speaker(StrEnum):
    """Who said it."""

    CALLER = "caller"
    AGENT = "agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One utterance."""

    id: TurnId
    fence: Fence
    seq: int
    speaker: Speaker
    agent: AgentId
    """The agent that said it, or that heard the caller say it."""
    role: RoleName
    text: str
    played: float | None
    """Seconds of it that were played, so far or in all; None if none were reported."""
    ended: bool = False
    """Whether an agent's turn came to its end, or was interrupted; False for one that was cut off by a death."""
    at: datetime
    """When it was logged, by the server's clock."""
    key: str = ""
    """Under which it was logged: the same for a repeated append, whatever its id."""


class TurnLog:
    """The turns of one room."""

    def __init__(self, store: Store, keys: RoomKeys, changes: Changes, *, name: str, memory: Memory) -> None:
        self._store, self._keys, self._changes, self._name = store, keys, changes, name
        self._memory = memory

    async def append(
        self, *, fence: int, speaker: Speaker, agent: str, role: str, text: str, key: str | None = None
    ) -> Turn:
        """Logs an utterance that began under `fence`, and returns the turn as it is stored.

        Repeated with the same `key`, it writes nothing and returns the first one. `fence` may be older than the
        floor's: whoever held the floor when an utterance began writes it, and it stands before the next holder's.
        Raises `StaleFence` for a fence under which this agent never held the floor, `InvalidArgument` for more than
        16 KiB of text or text that is no Unicode, `InvalidName` for a key with white space.
        """
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"A turn must be Unicode text: {error}.") from error
        if size > MAX_TEXT:
            raise InvalidArgument(f"A turn of {size} bytes is too long; at most {MAX_TEXT} are logged.")
        if key is not None and (not key or key.split() != [key]):
            raise InvalidName("turn key", key, "it is empty or holds white space")
        body = json.dumps({"speaker": speaker, "agent": agent, "role": role, "text": text}, ensure_ascii=False)
        room = self._keys
        keys = (room.turns, room.turn_order, room.roster, room.floor.lease, room.events)
        limits = (MAX_TURNS, MAX_BYTES, UNATTENDED_MS, self._memory.last_of(fence))
        args = (room.everyone, fence, key or new_request_id(), agent, body, *limits)
        reply = await self._store.run(APPEND, keys, args)
        if reply[0] == 0:
            METRICS.refused_write("turns")
            raise StaleFence(f"the turn log of {self._name}", fence, reply[1])
        # Should the message of an erasure have been lost, it is known by the next turn.
        self._memory.drop(int(reply[3] or 0))
        self._memory.saw_turn(reply[1].decode(), reply[2], b"")
        return _turn(reply[1], reply[2], b"")

    async def mark_played(self, turn: str, seconds: float, *, ended: bool = True) -> bool:
        """Records how much of an agent's turn was played, in seconds; False if the turn is not in the log.

        `ended` is False while it is still being said: nobody is told of that.
        """
        keys = (self._keys.turns, self._keys.turn_order)
        args = (self._keys.everyone, turn, f"{seconds:.3f}", int(ended))
        self._memory.saw_played(turn, f"{seconds:.3f}" if ended else f"{seconds:.3f}~")
        return bool(await self._store.run(PLAYED, keys, args))

    async def read(self, *, since: str | None = None) -> tuple[Turn, ...]:
        """The turns as they were said, all or those behind `since`."""
        keys = (self._keys.turns, self._keys.turn_order)
        found = cast("list[bytes]", await self._store.run(READ, keys, (since or "-",)))
        entries = [(found[i], found[i + 1], found[i + 2]) for i in range(0, len(found), 3)]
        for turn_id, stored, played in entries:
            self._memory.saw_turn(turn_id.decode(), stored, played)
        return tuple(_turn(*entry) for entry in entries)

    async def unsaved(self) -> tuple[Turn, ...]:
        """The turns that nobody has noted as saved, as they were said."""
        found = cast("list[bytes]", await self._store.run(UNSAVED, (self._keys.turns, self._keys.turn_order), ()))
        return tuple(_turn(*found[i : i + 3]) for i in range(0, len(found), 3))

    async def mark_saved(self, *turns: str) -> int:
        """Notes that these turns are durable elsewhere; returns how many of them the log has."""
        return int(await self._store.run(SAVED, (self._keys.turns, self._keys.turn_order), turns))

    async def read_along(self) -> None:
        """Reads what is new until cancelled, so that this process could put it back; waits while Redis is away."""
        await self._changes.open()
        since: str | None = None
        with self._changes.subscribe(Kind.TURNS) as wakeup:
            while True:
                try:
                    turns = await self.read(since=since)
                except StoreUnavailable as error:
                    logger.debug("reading along waits for Redis: %s", error)
                else:
                    # The last one is read again: how much of it was heard is known later.
                    since = turns[-2].id if len(turns) > 1 else since
                await wakeup.next()

    def follow(self) -> AsyncIterator[tuple[Turn, ...]]:
        """The whole log now, and again after each change."""
        return self._changes.watch(Kind.TURNS, self.read)


def _turn(turn_id: bytes, stored: bytes, played: bytes) -> Turn:
    at, key, body = stored.decode().split(" ", 2)
    values: dict[str, Any] = json.loads(body)
    fence, _, seq = turn_id.decode().partition("-")
    return Turn(
        id=TurnId(turn_id.decode()),
        fence=Fence(int(fence)),
        seq=int(seq),
        speaker=Speaker(values["speaker"]),
        agent=AgentId(values["agent"]),
        role=RoleName(values["role"]),
        text=values["text"],
        played=float(played.rstrip(b"~")) if played else None,
        ended=bool(played) and not played.endswith(b"~"),
        at=moment(int(at)),
        key=key,
    )
