"""A process's signs of life: they keep the slots that it holds, and add up what it counted.

A process that dies stops beating, and its slots are free after `SLOT_LIFE`. One that was stopped and comes back finds
that its slots ran out: each is asked for again, and what is refused is lost (`Reservation.lost`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from coordination.errors import LimitError, StoreError
from coordination.limits.buckets import Slots
from coordination.limits.usage import Counts
from coordination.store.keys import LimitKeys
from coordination.store.scripts import Script

if TYPE_CHECKING:
    from coordination.limits.admission import Admissions
    from coordination.limits.reservation import Reservation

logger = logging.getLogger("coordination.limits")

BEAT: Final = Script.load("limits/beat")
USED: Final = Script.load("limits/used")

SLOT_LIFE: Final = 3.0
"""Seconds that a slot outlives its last heartbeat; lua/lib/buckets.lua has the same."""
BEAT_EVERY: Final = 1.0
SIGN_EVERY: Final = 5
"""Beats between signs of life of a process that holds no slots, and between additions to what was used."""
IDLE_AFTER: Final = 30.0
"""Seconds without a request after which a process no longer counts as one that uses the provider."""


class Heartbeat:
    """What one process holds of one provider, and the task that keeps it."""

    def __init__(self, engine: Admissions, keys: LimitKeys) -> None:
        self._engine = engine
        self._keys = keys
        self._held: set[Reservation] = set()
        self._task: asyncio.Task[None] | None = None
        self._used_at = 0.0
        self.counts = Counts()
        self.processes = 1
        """Processes that use the provider, as last known."""

    def use(self) -> None:
        """Notes that the provider is in use here: the process is counted among those that share it."""
        self._used_at = asyncio.get_running_loop().time()
        if self._task is None:
            self._task = asyncio.create_task(self._beat(), name="baton-limit-beat")

    def hold(self, reservation: Reservation) -> None:
        """Keeps the reservation's slots until `drop`."""
        self._held.add(reservation)
        self.use()

    def drop(self, reservation: Reservation) -> None:
        self._held.discard(reservation)

    def holds(self, slots: str) -> int:
        """How many slots of a set this process holds."""
        return sum(any(isinstance(c, Slots) and c.set == slots for c in held.checks) for held in self._held)

    async def _beat(self) -> None:
        loop, beats = asyncio.get_running_loop(), 0
        while self._held or loop.time() - self._used_at < IDLE_AFTER:
            await asyncio.sleep(BEAT_EVERY)
            beats += 1
            try:
                if self._held or beats % SIGN_EVERY == 1:
                    await self.beat_once()
                if beats % SIGN_EVERY == 0:
                    await self.add_up()
            except StoreError as error:
                logger.warning("slots at Redis %s are not renewed: %s", self._engine.store.label, error)
        self._task = None

    async def beat_once(self) -> None:
        """Renews all slots; asks again for those that ran out."""
        slots: list[tuple[Reservation, str, str]] = [
            (held, check.set, held.slot) for held in self._held for check in held.checks if isinstance(check, Slots)
        ]
        names = [value for _, *pair in slots for value in pair]
        args = (self._keys.base, self._engine.process, *names)
        reply: list[int] = await self._engine.store.run(BEAT, self._keys.keys, args, patience=0)
        self.processes, lost = reply[0], reply[1:]
        for held in {slots[index][0] for index in lost}:
            if held in self._held:
                await self._hold_again(held)

    async def _hold_again(self, held: Reservation) -> None:
        try:
            await held.admit_again()
        except LimitError as error:
            logger.warning("a slot ran out while its process did not beat, and is taken: %s", error)
            self.drop(held)
            held.lost.set()

    async def add_up(self) -> None:
        """Adds what this process counted to the minute's use. Raises `StoreError`; the counts are then lost."""
        if counts := self.counts.take():
            await self._engine.store.run(USED, self._keys.keys, (self._keys.usage, *counts), patience=0)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        try:
            await self.add_up()
        except StoreError as error:
            logger.warning("the last counts of a provider's use are lost: %s", error)
