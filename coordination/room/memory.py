"""What this process knows of a room's context and turns, and how it is put back when the store has forgotten it.

A server that comes back empty, or as it was before, has lost the story of the call; the holder's claim keeps the floor,
and this keeps what was said. Only the holder of the floor puts anything back, only what is missing, and never over what
is newer: so it may be done twice, and by two holders one after the other. What was erased is never put back: the store
notes the moment, all processes are told, and one that was not finds the note with the next turn or reconnect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from coordination.errors import StoreError, StoreUnavailable
from coordination.leases.engine import LeaseEngine
from coordination.room.changes import Changes
from coordination.store.keys import UNATTENDED_TTL, RoomKeys
from coordination.store.scripts import Script

logger = logging.getLogger("coordination.room")

RESTORE: Final = Script.load("room/restore")
FORGET: Final = Script.load("room/forget")
MAX_TURNS: Final = 500
"""The newest are kept: what an agent that takes over can use."""
MAX_BYTES: Final = 256 * 1024
ATTEMPTS: Final = 30
APART: Final = 0.1
"""Seconds between attempts, for as long as the holder's claim may take after a return."""


class Memory:
    """Bounded copies of one room's context and turns."""

    def __init__(self, engine: LeaseEngine, keys: RoomKeys, fence: Callable[[], int | None], changes: Changes) -> None:
        """`fence` is that of the floor while this process holds it. Nothing is subscribed yet."""
        self._engine, self._keys, self._fence, self._changes = engine, keys, fence, changes
        self._version, self._document = 0, ""
        self._turns: dict[str, tuple[bytes, str]] = {}
        self._bytes = 0
        self._last: dict[str, int] = {}
        """Highest sequence number by fence, also of turns that are not remembered any more."""
        self._erased = 0
        self._following = False

    def saw_context(self, version: int, document: str) -> None:
        """A document as the store had it."""
        self._follow()
        if version > max(self._version, self._erased):
            self._version, self._document = version, document

    def saw_turn(self, turn: str, stored: bytes, played: bytes) -> None:
        """A turn as the store had it. The oldest leave first."""
        self._follow()
        fence, _, seq = turn.partition("-")
        self._last[fence] = max(int(seq), self._last.get(fence, 0))
        if _moment(stored) <= self._erased:
            return
        if turn not in self._turns:
            self._bytes += len(stored)
        self._turns[turn] = (stored, played.decode())
        while len(self._turns) > MAX_TURNS or self._bytes > MAX_BYTES:
            oldest = min(self._turns)
            self._bytes -= len(self._turns.pop(oldest)[0])

    def saw_played(self, turn: str, played: str) -> None:
        if turn in self._turns:
            self._turns[turn] = (self._turns[turn][0], played)

    def last_of(self, fence: int) -> int:
        """The highest sequence number known under a fence: a store that forgot it must not give it out again."""
        return self._last.get(f"{fence:016d}", 0)

    async def erase(self) -> None:
        """Removes what was said and agreed so far, from the store and from all memories. Raises `StoreError`."""
        ttl = int(UNATTENDED_TTL.total_seconds() * 1000)
        self.drop(int(await self._engine.store.run(FORGET, self._store_keys[:4], (self._keys.everyone, ttl))))

    def drop(self, until: int) -> None:
        """Whatever the store had up to that moment (its clock, in microseconds) is erased."""
        if until <= self._erased:
            return
        self._erased = until
        if self._version <= until:
            self._version, self._document = 0, ""
        for turn in [turn for turn, (stored, _) in self._turns.items() if _moment(stored) <= until]:
            self._bytes -= len(self._turns.pop(turn)[0])

    def close(self) -> None:
        if self._following:
            self._engine.store.subscriber.on_restored.remove(self._on_restored)
            self._changes.on_forgotten.remove(self._on_forgotten)
            self._following = False

    def _follow(self) -> None:
        if not self._following:
            self._engine.store.subscriber.on_restored.append(self._on_restored)
            self._changes.on_forgotten.append(self._on_forgotten)
            self._following = True

    def _on_restored(self) -> None:
        self._engine.keeper.spawn(self.restore(), "baton-restore")

    def _on_forgotten(self) -> None:
        self._engine.keeper.spawn(self._learn(), "baton-forget")

    async def _learn(self) -> None:
        try:
            await self._forgotten()
        except StoreError as error:
            logger.debug("what was erased in a room is asked for again later: %s", error)

    async def restore(self) -> None:
        """Puts back what the store has forgotten, if this process holds the floor. Raises nothing on purpose."""
        for _ in range(ATTEMPTS):
            if (fence := self._fence()) is None:
                return
            try:
                if not await self._forgotten():
                    return
                reply = await self._engine.store.run(RESTORE, self._store_keys, self._copies(fence))
            except StoreUnavailable:
                reply = [0]
            except StoreError as error:
                logger.error("what was said in a room is not put back: %s", error)
                return
            if reply[0] == 1:
                logger.warning("put back what the store had forgotten of a room: %d turns", reply[2])
                return
            # The other connection, or the claim of the floor, is still on its way.
            await asyncio.sleep(APART)

    async def _forgotten(self) -> bool:
        """Whether the store knows less than this process, and not because it was erased; asked at each reconnect."""
        store = self._engine.store
        self.drop(int(await store.command("HGET", self._keys.turns, "forgotten") or 0))
        version = await store.command("HGET", self._keys.context, "version")
        if int(version or 0) < self._version:
            return True
        count = int(await store.command("ZCARD", self._keys.turn_order))
        return count < len(self._turns)

    @property
    def _store_keys(self) -> tuple[str, ...]:
        room = self._keys
        return room.context, room.turns, room.turn_order, room.roster, room.floor.lease

    def _copies(self, fence: int) -> tuple[str | bytes | int, ...]:
        copies: list[str | bytes | int] = [self._keys.everyone, fence, self._version, self._document]
        copies.append(int(UNATTENDED_TTL.total_seconds() * 1000))
        for turn in sorted(self._turns):
            copies += [turn, *self._turns[turn]]
        return tuple(copies)


def _moment(stored: bytes) -> int:
    """When the store took a turn, by its own clock: what a stored turn begins with."""
    return int(stored.partition(b" ")[0])
