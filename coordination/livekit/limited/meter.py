"""Reserving as a stream goes on: nobody knows at its begin how much will be said."""

from __future__ import annotations

from livekit.agents import APIError

from coordination.limits.reservation import Reservation
from coordination.limits.units import Unit
from coordination.livekit.limited.budget import Budget, ProviderBusy, Waiting


class Meter:
    """Counts one unit of a stream, and reserves the next slice before the one before is used up.

    Every slice but the last counts as it was reserved; `close` settles the last. Where nothing was reserved, for a
    fallback, it counts nothing.
    """

    def __init__(
        self, first: Reservation | None, *, unit: Unit, slice_size: float, budget: Budget, waiting: Waiting
    ) -> None:
        self._unit, self._slice = unit, slice_size
        self._budget, self._waiting = budget, waiting
        self._first = self._current = first
        self._left = self._size = slice_size
        self._answered = self._refused = False

    async def use(self, amount: float) -> None:
        """Returns when so much more may be sent. Raises `ProviderBusy`; text and audio wait in the stream meanwhile."""
        if self._current is None:
            return
        if amount > self._left:
            size = max(self._slice, amount - self._left)
            following = await self._budget.reserve({self._unit: size}, timeout=self._waiting.timeout)
            before, self._current = self._current, following
            # What was left of the slice before goes with this piece: that slice was used whole.
            self._left, self._size = size + self._left, size
            if before is not self._first:
                await before.close()
        self._left -= amount

    def answered(self) -> None:
        """The provider has answered: a fault that comes now does not mean that nothing was used."""
        self._answered = True

    def failed(self, error: APIError) -> None:
        """The stream has failed. A provider that never answered has refused it and counted nothing."""
        self._refused = not self._answered and not isinstance(error, ProviderBusy)

    async def close(self) -> None:
        """Settles what was used of the last slice; all of it comes back if the provider refused."""
        if self._current is None:
            return
        if self._refused:
            self._current.cancel()
        else:
            settle(self._current, self._unit, max(0.0, self._size - self._left))
        if self._current is not self._first:
            await self._current.close()


def settle(reservation: Reservation, unit: Unit, used: float) -> None:
    """By a unit that is known at run time only."""
    if unit is Unit.CHARACTERS:
        reservation.settle(characters=used)
    elif unit is Unit.AUDIO_SECONDS:
        reservation.settle(audio_seconds=used)
    else:
        raise AssertionError(f"no stream is metered in {unit.value}")
