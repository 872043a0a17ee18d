"""What this process knows of a room's context and turns, and how it is put back when the store has forgotten it.

A server that comes back empty, or as it was before, has lost the story of the call; the holder's claim keeps the floor,
and this keeps what was said. Only the holder of the floor puts anything back, only what is missing, and never over what
is newer: so it may be done twice, and by two holders one after the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from coordination.errors import StoreError, StoreUnavailable
from coordination.leases.engine import LeaseEngine
from coordination.store.keys import UNATTENDED_TTL, RoomKeys
from coordination.store.scripts import Script

logger = logging.getLogger("coordination.room")

RESTORE: Final = Script.load("room/restore")
MAX_TURNS: Final = 500
"""The newest are kept: what an agent that takes over can use."""
MAX_BYTES: Final = 256 * 1024
ATTEMPTS: Final = 30
APART: Final = 0.1
"""Seconds between attempts, for as long as the holder's claim may take after a return."""


class Memory:
    """Bounded copies of one room's context and turns."""

    def __init__(self, engine: LeaseEngine, keys: RoomKeys, fence: Callable[[], int | None]) -> None:
        """`fence` is that of the floor while this process holds it. Nothing is subscribed yet."""
        self._engine, self._keys, self._fence = engine, keys, fence
        self._version, self._document = 0, ""
        self._turns: dict[str, tuple[bytes, str]] = {}
        self._bytes = 0
        self._following = False

    def saw_context(self, version: int, document: str) -> None:
        """A document as the store had it."""
        self._follow()
        if version > self._version:
            self._version, self._document = version, document

    def saw_turn(self, turn: str, stored: bytes, played: bytes) -> None:
        """A turn as the store had it. The oldest leave first."""
        self._follow()
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
        start = f"{fence:016d}-"
        return max((int(turn[len(start) :]) for turn in self._turns if turn.startswith(start)), default=0)

    def close(self) -> None:
        if self._following:
            self._engine.store.subscriber.on_restored.remove(self._on_restored)
            self._following = False

    def _follow(self) -> None:
        if not self._following:
            self._engine.store.subscriber.on_restored.append(self._on_restored)
            self._following = True

    def _on_restored(self) -> None:
        self._engine.keeper.spawn(self.restore(), "baton-restore")

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
        """Whether the store knows less than this process; a short question, asked at each reconnect."""
        store = self._engine.store
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
