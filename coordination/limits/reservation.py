"""A reservation: a part of a provider's limits that was admitted, and is settled by what was really used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from coordination.errors import InvalidArgument
from coordination.limits.buckets import Check
from coordination.limits.request import Admission, LimitRequest
from coordination.limits.units import Costs, Unit, amount

if TYPE_CHECKING:
    from coordination.limits.admission import Admissions

R = TypeVar("R", bound="Reservation")


class Reservation:
    """What was admitted. It is settled once, by `close` or at the end of its block.

    Not settled, it counts as it was reserved: an unsettled reservation needs no call and no cleaning up, for what it
    took of a bucket comes back with time alone.
    """

    __slots__ = ("_admission", "_closed", "_engine", "_lost", "_request", "_used", "waited")

    def __init__(self, engine: Admissions, request: LimitRequest, admission: Admission) -> None:
        self._engine = engine
        self._request = request
        self._admission = admission
        self._used: Costs = dict(request.costs)
        self._closed = False
        self.waited = asyncio.get_running_loop().time() - request.entered_at
        """Seconds from the call to the admission."""
        self._lost: asyncio.Event | None = None

    @property
    def provider(self) -> str:
        return self._request.shape.provider

    @property
    def tenant(self) -> str:
        return self._request.shape.tenant

    @property
    def checks(self) -> tuple[Check, ...]:
        """What it was admitted against."""
        return self._request.shape.variant(self._admission.variant)

    @property
    def holds_slots(self) -> bool:
        """Whether something of it is held for a time, and has to be kept alive."""
        return self._request.shape.holds_slots

    @property
    def slot(self) -> str:
        """What its slots are held under."""
        return self._request.slot

    @property
    def lost(self) -> asyncio.Event:
        """Set when a slot that it holds is no longer its own: another may have it. Streams and calls only."""
        if self._lost is None:
            self._lost = asyncio.Event()
        return self._lost

    @property
    def waited_for_turn(self) -> bool:
        """Whether it was not admitted at the moment at which it asked."""
        return self._request.waited

    @property
    def within_guarantee(self) -> bool:
        """Whether it was admitted as a part of what the tenant is guaranteed."""
        return self._admission.variant == 1

    @property
    def local(self) -> bool:
        """Whether this process admitted it alone, because Redis was away."""
        return self._admission.variant == 0

    @property
    def moment(self) -> int:
        """When it was admitted, by the server's clock in microseconds; 0 if locally."""
        return self._admission.moment

    def settle(
        self,
        *,
        requests: float | None = None,
        tokens: float | None = None,
        characters: float | None = None,
        audio_seconds: float | None = None,
    ) -> None:
        """Says what was really used; sent by `close`. Units that are not named count as they were reserved.

        Less than reserved is given back, for as long as the reservation is open (five minutes); more becomes debt,
        which the bucket earns back before it admits again. Raises `InvalidArgument` for a negative amount or a unit
        that was not reserved.
        """
        given = {
            Unit.REQUESTS: requests,
            Unit.TOKENS: tokens,
            Unit.CHARACTERS: characters,
            Unit.AUDIO_SECONDS: audio_seconds,
        }
        for unit, value in given.items():
            if value is None:
                continue
            if unit not in self._request.costs:
                raise InvalidArgument(
                    f"No {unit.value} were reserved at {self.provider}: reserve what is settled later."
                )
            self._used[unit] = amount(unit, value, zero=True)

    def cancel(self) -> None:
        """Says that nothing was used: all of it is given back by `close`."""
        self._used = dict.fromkeys(self._used, 0)

    async def admit_again(self) -> None:
        """Asks for its slots once more, and for nothing else. Raises `LimitExceeded` if they are taken."""
        admission = await self._engine.admit(self._request.for_slots_again())
        self._admission = Admission(admission.variant, self._admission.moment)

    async def close(self) -> None:
        """Sends what was settled, and frees its slots. Safe to call twice; cancelled, it is sent all the same."""
        if self._closed:
            return
        self._closed = True
        self._engine.let_go(self)
        work = self._engine.settle(self._request, self._admission, self._used)
        await asyncio.shield(self._engine.spawn(work, "baton-limit-settle"))

    async def __aenter__(self) -> Reservation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        costs = ", ".join(f"{unit.value}={cost / 1000:g}" for unit, cost in self._request.costs.items())
        return f"<Reservation {self.provider} for {self.tenant}: {costs}>"


class CallLease(Reservation):
    """A call that was admitted. All agents of its room share the one slot, and each keeps it alive."""

    __slots__ = ()

    async def close(self) -> None:
        """Leaves: without another agent of the call the slot is free three seconds later."""
        self._closed = True
        self._engine.let_go(self)

    async def end(self) -> None:
        """The call is over: its slot is free when this returns."""
        self._closed = False
        await super().close()


class Reserving(Generic[R]):
    """What `Limits.reserve` and `Limits.call` return: await it, or use it in `async with`."""

    __slots__ = ("_make", "_reservation")

    def __init__(self, make: Callable[[], Awaitable[R]]) -> None:
        self._make = make
        self._reservation: R | None = None

    def __await__(self) -> Generator[Any, None, R]:
        return self._make().__await__()

    async def __aenter__(self) -> R:
        self._reservation = await self._make()
        return self._reservation

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reservation is not None:
            await self._reservation.close()
