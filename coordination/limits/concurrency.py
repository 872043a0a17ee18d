"""Slots that are held for a time: streams of a provider, and calls. They live on the heartbeats of their process.

A process that dies stops beating, and its slots are free after `SLOT_LIFE`. One that was stopped and comes back finds
that its slots ran out: each is asked for again, and what is refused is lost (`Reservation.lost`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from coordination.errors import LimitError, StoreError
from coordination.limits.buckets import Slots
from coordination.store.keys import LimitKeys
from coordination.store.scripts import Script

if TYPE_CHECKING:
    from coordination.limits.admission import Admissions
    from coordination.limits.reservation import Reservation

logger = logging.getLogger("coordination.limits")

BEAT: Final = Script.load("limits/beat")

SLOT_LIFE: Final = 3.0
"""Seconds that a slot outlives its last heartbeat; limits/lib/buckets has the same."""
BEAT_EVERY: Final = 1.0


class Heartbeat:
    """What one process holds of one provider, and the task that keeps it."""

    def __init__(self, engine: Admissions, keys: LimitKeys) -> None:
        self._engine = engine
        self._keys = keys
        self._held: set[Reservation] = set()
        self._task: asyncio.Task[None] | None = None
        self.processes = 1
        """Processes that use the provider, as last known."""

    def hold(self, reservation: Reservation) -> None:
        """Keeps the reservation's slots until `drop`."""
        self._held.add(reservation)
        if self._task is None:
            self._task = asyncio.create_task(self._beat(), name="baton-limit-beat")

    def drop(self, reservation: Reservation) -> None:
        self._held.discard(reservation)
        if not self._held and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_EVERY)
            try:
                await self.beat_once()
            except StoreError as error:
                logger.warning("slots at Redis %s are not renewed: %s", self._engine.store.label, error)

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

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
