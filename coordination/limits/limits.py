"""`coordinator.limits`: what an application asks of the limits."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, TypeVar

from coordination.errors import InvalidArgument, LimitError, TenantBlocked, UnknownProvider
from coordination.ids import DEFAULT_TENANT, ProcessId, RequestId, check_name
from coordination.limits.admission import Admissions
from coordination.limits.buckets import Shape
from coordination.limits.config import LimitsConfig
from coordination.limits.control import Control
from coordination.limits.feedback import FEEDBACK, corrections
from coordination.limits.files import FollowedFiles
from coordination.limits.report import report
from coordination.limits.request import Admission, LimitRequest
from coordination.limits.reservation import CallLease, Reservation, Reserving
from coordination.limits.shapes import Shapes, Subject
from coordination.limits.units import FINEST, Costs, Unit, costs_of
from coordination.limits.usage import ProviderUse
from coordination.metrics import METRICS
from coordination.store.store import Store

RESERVE_TIMEOUT: Final = timedelta(seconds=10)
NOT_AT_ALL: Final = timedelta(0)
R = TypeVar("R", bound=Reservation)


class Limits:
    """Shared budgets of providers: a limit holds across all processes that share the store and its prefix."""

    def __init__(self, store: Store, process: ProcessId, config: LimitsConfig | None = None) -> None:
        self._store = store
        self._engine = Admissions(store, process)
        self._numbers = itertools.count(1)
        self._config = config or LimitsConfig()
        self._shapes = Shapes(self._config)
        self._control = Control(store, self._renew)
        self._following: asyncio.Task[None] | None = None

    # -- configuration ------------------------------------------------------------------------------------------------

    @property
    def config(self) -> LimitsConfig:
        """What holds: what was configured, with what operators set over it."""
        return self._shapes.config

    def configure(self, config: LimitsConfig) -> None:
        """Takes a new configuration from now on. What was admitted or waits stays as it is."""
        self._config = config
        self._renew()

    def follow(self, files: FollowedFiles) -> None:
        """Takes the configuration from files, now and whenever they change. Raises `InvalidSettings` for the first."""
        self.configure(files.load())
        self._following = asyncio.create_task(self._follow(files), name="baton-limit-files")

    async def _follow(self, files: FollowedFiles) -> None:
        while True:
            self.configure(await files.next())

    def _renew(self) -> None:
        self._shapes = Shapes(self._config.with_limits(self._control.overrides), self._control.blocked)
        self._engine.refuse(self._blocked)

    def _blocked(self, request: LimitRequest) -> TenantBlocked | None:
        tenant = request.shape.tenant
        why = self._control.blocked.get(tenant)
        return None if why is None else TenantBlocked(tenant, why)

    async def set(self, provider: str, limit: str, values: Mapping[str, Any] | None) -> bool:
        """Sets a limit for all processes at once, over what is configured: `{"limit": 100, "burst": 10}`.

        It holds until it is set to None. True if that changed anything. Raises `InvalidSettings` for values that make
        no limit, `UnknownProvider`.
        """
        known = self._shapes.config.limits.providers.get(provider)
        if known is None or limit not in known.limits:
            raise UnknownProvider(f"{provider}.{limit}", tuple(self._config.limits.providers))
        if values is not None:
            self._config.with_limits({f"{provider}/{limit}": dict(values)}, strict=True)
        return await self._control.set(provider, limit, None if values is None else dict(values))

    async def block(self, tenant: str, *, reason: str = "") -> bool:
        """Refuses every new request and call of a tenant, in all processes, until `unblock`. True if it was not."""
        return await self._control.block(tenant, reason)

    async def unblock(self, tenant: str) -> bool:
        """True if the tenant was blocked."""
        return await self._control.unblock(tenant)

    async def blocked(self) -> dict[str, str]:
        """The tenants that operators have blocked, and why."""
        await self._control.read()
        return dict(self._control.blocked)

    async def overrides(self) -> dict[str, dict[str, Any]]:
        """`provider/limit` -> what operators have set."""
        await self._control.read()
        return dict(self._control.overrides)

    async def show(self, provider: str, *, span: timedelta = timedelta(minutes=5)) -> ProviderUse:
        """What the limits of a provider look like now, and who used it in the last minutes (at most 60).

        `calls` is the name for calls. What processes counted is added up every five seconds.
        """
        await self._ready()
        return await report(self._store, self._store.keys.limits(provider), self._shapes, provider, span)

    async def _ready(self) -> None:
        if not self._control.loaded:
            await self._control.start()

    # -- reserving ----------------------------------------------------------------------------------------------------

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
    ) -> Reserving[Reservation]:
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
        costs = costs_of(requests, tokens, characters, audio_seconds, streams)
        subject = Subject(provider, tenant, model, room, role, caller, transfer)
        return Reserving(lambda: self._reserve(subject, costs, priority, timeout))

    async def _reserve(self, subject: Subject, costs: Costs, priority: int, timeout: timedelta | None) -> Reservation:
        if not self._control.loaded:
            await self._control.start()
        shape = self._shapes.of(subject, tuple(costs))
        rid = self._new_id()
        request = self._request(shape, costs, rid, rid, priority, timeout, None)
        admission = await self._admit(request)
        return self._keep(Reservation(self._engine, request, admission))

    async def _admit(self, request: LimitRequest) -> Admission:
        """Admits and counts."""
        tenant, counts = request.shape.tenant, self._engine.heartbeat(request.keys).counts
        try:
            admission = await self._engine.admit(request)
        except LimitError:
            counts.refused(tenant)
            raise
        METRICS.limit_admitted(request.shape.provider)
        counts.admitted(tenant, request)
        return admission

    def _new_id(self) -> RequestId:
        """Unique: the process's own random id, and a number."""
        return RequestId(f"{self._engine.process}.{next(self._numbers)}")

    def _request(
        self,
        shape: Shape,
        costs: Costs,
        rid: RequestId,
        slot: str,
        priority: int,
        timeout: timedelta | None,
        on_place: Callable[[int], None] | None,
    ) -> LimitRequest:
        if not -(2**31) < priority < 2**31:
            raise InvalidArgument(f"Priority {priority} is out of range: give a number that fits 32 bits.")
        now = asyncio.get_running_loop().time()
        return LimitRequest(
            id=rid,
            keys=self._engine.keys(shape.provider),
            shape=shape,
            costs=costs,
            slot=slot,
            process=self._engine.process,
            priority=priority,
            entered_at=now,
            give_up=None if timeout is None else now + max(timeout.total_seconds(), 0.0),
            on_place=on_place,
        )

    def _keep(self, reservation: R) -> R:
        """Keeps the slots of a reservation alive, if it has any."""
        if reservation.holds_slots:
            self._engine.heartbeat(self._engine.keys(reservation.provider)).hold(reservation)
        return reservation

    # -- calls --------------------------------------------------------------------------------------------------------

    def call(
        self,
        room: str,
        *,
        tenant: str = DEFAULT_TENANT,
        continuing: bool = False,
        priority: int = 0,
        timeout: timedelta | None = NOT_AT_ALL,
        on_place: Callable[[int], None] | None = None,
    ) -> Reserving[CallLease]:
        """Admits a call of a tenant, over the whole cluster, under the name of its room.

        A call is counted once, however many agents ask for its room: whoever asks while it is admitted is admitted.
        With `continuing` (a takeover after all of its agents died) it is admitted in any case. The lease lives on this
        process's heartbeats; `end` frees it at once, `close` leaves it to the other agents of the call.

        `on_place` is told its place among the calls of its tenant that wait, 1 for the next, whenever that changes.
        Raises `LimitExceeded`, `LimitTimeout`, `UnknownTenant`, `TenantBlocked`, `InvalidName`.
        """
        return Reserving(lambda: self._call(room, tenant, continuing, priority, timeout, on_place))

    async def _call(
        self,
        room: str,
        tenant: str,
        continuing: bool,
        priority: int,
        timeout: timedelta | None,
        on_place: Callable[[int], None] | None,
    ) -> CallLease:
        await self._ready()
        shape = self._shapes.calls(tenant, continuing=continuing)
        slot = f"{tenant}/{check_name(room, 'room')}"
        one: Costs = {Unit.STREAMS: FINEST}
        request = self._request(shape, one, self._new_id(), slot, priority, timeout, on_place)
        return self._keep(CallLease(self._engine, request, await self._admit(request)))

    # -- feedback -----------------------------------------------------------------------------------------------------

    async def feedback(
        self,
        provider: str,
        *,
        model: str | None = None,
        retry_after: timedelta | None = None,
        remaining: Mapping[str, float] = MappingProxyType({}),
        units: tuple[str, ...] = (),
    ) -> None:
        """Tells all workers what a provider said of its own budget.

        `retry_after`: from a 429; nothing of the `units` (all, if none are named) passes before. `remaining`: what the
        provider says is left, by unit. Raises `UnknownProvider`, `InvalidArgument`, `StoreUnavailable`.
        """
        subject = Subject(provider=provider, tenant=DEFAULT_TENANT, model=model)
        changes = corrections(self._shapes, subject, retry_after, remaining, units)
        if changes:
            keys = self._store.keys.limits(provider)
            await self._store.run(FEEDBACK, keys.keys, (keys.base, *changes))

    async def close(self) -> None:
        """Ends what is held and all background work."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._control.close()
        await self._engine.close()
