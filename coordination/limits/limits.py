"""`coordinator.limits`: what an application asks of the limits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from coordination.errors import InvalidArgument
from coordination.ids import DEFAULT_TENANT, ProcessId, new_request_id
from coordination.limits.admission import Admissions
from coordination.limits.config import LimitsConfig
from coordination.limits.request import LimitRequest
from coordination.limits.reservation import Reservation, Reserving
from coordination.limits.shapes import Shapes, Subject
from coordination.limits.units import Costs, Unit, costs_of
from coordination.metrics import METRICS
from coordination.store.store import Store

RESERVE_TIMEOUT: Final = timedelta(seconds=10)


class Limits:
    """Shared budgets of providers: a limit holds across all processes that share the store and its prefix."""

    def __init__(self, store: Store, process: ProcessId, config: LimitsConfig | None = None) -> None:
        self._store = store
        self._engine = Admissions(store, process)
        self._shapes = Shapes(config or LimitsConfig())

    @property
    def config(self) -> LimitsConfig:
        """What is configured."""
        return self._shapes.config

    def configure(self, config: LimitsConfig) -> None:
        """Takes a new configuration from now on. What was admitted or waits stays as it is."""
        self._shapes = Shapes(config)

    def reserve(
        self,
        provider: str,
        *,
        tenant: str = DEFAULT_TENANT,
        model: str | None = None,
        room: str | None = None,
        role: str | None = None,
        caller: str | None = None,
        requests: float | None = None,
        tokens: float | None = None,
        characters: float | None = None,
        audio_seconds: float | None = None,
        streams: int | None = None,
        priority: int = 0,
        timeout: timedelta | None = RESERVE_TIMEOUT,
        transfer: bool = False,
    ) -> Reserving:
        """Reserves a part of all limits of a provider that apply, at once or not at all.

        `async with limits.reserve("openai", tenant="acme", requests=1, tokens=800) as reservation`, or await it and
        `close` the reservation. What is not settled counts as reserved; a stream is held until the end of the block.

        It waits for up to `timeout` (None: without a bound; zero: not at all), larger `priority` first within a tenant,
        tenants by their weights. `transfer` lets a stream of an admitted call use what is kept for handoffs.

        Raises `LimitExceeded` (would have to wait, with the time until it passes), `LimitTimeout`, `CostAboveLimit`,
        `UnknownProvider`, `UnknownTenant`, `TenantBlocked`, `InvalidArgument` (an amount that is 0 or negative, a name
        that a limit needs), `StoreRefused`, and while Redis is away what the limit's policy says. Cancelled, it leaves
        no charge.
        """
        costs = costs_of(
            {
                Unit.REQUESTS: requests,
                Unit.TOKENS: tokens,
                Unit.CHARACTERS: characters,
                Unit.AUDIO_SECONDS: audio_seconds,
                Unit.STREAMS: streams,
            }
        )
        if not -(2**31) < priority < 2**31:
            raise InvalidArgument(f"Priority {priority} is out of range: give a number that fits 32 bits.")
        subject = Subject(
            provider=provider, tenant=tenant, model=model, room=room, role=role, caller=caller, transfer=transfer
        )
        return Reserving(lambda: self._reserve(subject, costs, priority, timeout))

    async def _reserve(self, subject: Subject, costs: Costs, priority: int, timeout: timedelta | None) -> Reservation:
        shape = self._shapes.of(subject, frozenset(costs))
        shape.require_possible(costs)
        loop = asyncio.get_running_loop()
        now, rid = loop.time(), new_request_id()
        request = LimitRequest(
            id=rid,
            keys=self._store.keys.limits(subject.provider),
            shape=shape,
            costs=costs,
            slot=rid,
            process=self._engine.process,
            priority=priority,
            entered_at=now,
            give_up=None if timeout is None else now + max(timeout.total_seconds(), 0.0),
        )
        admission = await self._engine.admit(request)
        waited = loop.time() - now
        METRICS.limit_admitted(subject.provider)
        reservation = Reservation(self._engine, request, admission, waited)
        if shape.holds_slots:
            self._engine.heartbeat(request.keys).hold(reservation)
        return reservation

    async def close(self) -> None:
        await self._engine.close()
