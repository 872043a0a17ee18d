"""The coordinator: opens the store and hands out the parts. One per process is enough for any number of rooms."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from coordination.handoff.protocol import Handoffs, HandoffState
from coordination.ids import DEFAULT_TENANT, AgentId, ProcessId, RoomName, Tenant, WorkerId, new_process_id
from coordination.leases.engine import LeaseEngine
from coordination.leases.lease import Lease
from coordination.leases.locks import LOCK_TIMEOUT, LOCK_TTL, Locks
from coordination.limits.config import LimitsConfig
from coordination.limits.files import FollowedFiles
from coordination.limits.limits import Limits
from coordination.persistence.calls import OpenCalls
from coordination.persistence.outbox.stream import StreamOutbox
from coordination.ports import CallServer, Silencer
from coordination.recovery.fleet import Fleet, FleetAgent
from coordination.recovery.presence import Listener, Presence
from coordination.recovery.replacement import Policy, Replacement
from coordination.recovery.watcher import Watcher
from coordination.room.changes import Changes
from coordination.room.context import SharedContext, Snapshot
from coordination.room.events import Events
from coordination.room.floor import Floor
from coordination.room.memory import Memory
from coordination.room.roster import Roster
from coordination.room.turns import TurnLog
from coordination.settings import CoordinatorSettings
from coordination.store.keys import UNATTENDED_TTL
from coordination.store.store import Store
from coordination.store.targets import Target

__all__ = ["Coordinator", "Opening", "Room"]


class Room:
    """What several agents share in one room. Nothing is subscribed or written before a part is used."""

    def __init__(
        self,
        engine: LeaseEngine,
        name: RoomName,
        tenant: Tenant,
        *,
        silencer: Silencer | None,
        floor_ttl: timedelta,
        keep: bool,
    ) -> None:
        store = engine.store
        keys = store.keys.room(name, tenant)
        self.name, self.tenant = name, tenant
        self._changes = Changes(store.subscriber, keys.everyone, also=lambda: engine.listen(keys.floor))
        self.floor = Floor(engine, keys, self._changes, name=name, silencer=silencer, ttl=floor_ttl, keep=keep)
        self.roster = Roster(store, keys, engine.process, self._changes)
        self._memory = Memory(engine, keys, self.floor.own_fence, self._changes)
        self.context = SharedContext(store, keys, self._changes, name=name, memory=self._memory)
        self.turns = TurnLog(store, keys, self._changes, name=name, memory=self._memory)
        self.events = Events(store, keys, self._changes)
        self.handoffs = Handoffs(engine, keys, self._changes, self.floor)

    async def promised_to(self) -> AgentId | None:
        """The agent that an open handoff has made ready to take the floor."""
        handoff = await self.handoffs.current()
        return handoff.to_agent if handoff is not None and handoff.state is HandoffState.READY else None

    async def target_lost(self, agent: AgentId, *, reason: str) -> None:
        """Ends an open handoff to this agent, so that whoever offered it learns at once."""
        handoff = await self.handoffs.current()
        if handoff is not None and handoff.open and handoff.to_agent == agent:
            await self.handoffs.abort(handoff.id, reason=reason)

    async def forget(self) -> None:
        """Erases context and turn log as they are now, for good; the call goes on. Raises `StoreError`.

        No process puts back what it remembers of them, also when Redis comes back empty.
        """
        await self._memory.erase()

    async def restore(self) -> None:
        """Puts back what the store has forgotten and this process knows, if it holds the floor. Raises nothing."""
        await self._memory.restore()

    def on_return(self, told: Callable[[], None]) -> Callable[[], None]:
        """Calls `told` whenever the store was lost and is there again; returns what ends that."""
        return self._changes.on_return(told)

    async def close(self) -> None:
        """Leaves: memberships end, leases are given back, channels are unsubscribed. What is shared stays."""
        self._memory.close()
        await self.roster.close()
        await self.floor.close()
        await self._changes.close()


class Opening:
    """What `Coordinator.open` returns: await it, or use it in `async with`."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def __await__(self) -> Generator[Any, None, Coordinator]:
        return self._coordinator.start().__await__()

    async def __aenter__(self) -> Coordinator:
        return await self._coordinator.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._coordinator.close()


class Coordinator:
    """This process's part in the coordination: two connections to Redis, and everything that is built on them."""

    def __init__(
        self,
        target: Target | None = None,
        *,
        settings: CoordinatorSettings | None = None,
        limits: LimitsConfig | None = None,
    ) -> None:
        """Nothing is connected yet. Raises `InvalidSettings` without a URL or for one that is none."""
        self.settings = settings or CoordinatorSettings()
        chosen = target if target is not None else self.settings.require_redis_url()
        self._store = Store(chosen, prefix=self.settings.prefix, allow_eviction=self.settings.allow_eviction)
        self.process: ProcessId = new_process_id()
        self._engine = LeaseEngine(self._store, self.process, replicas=self.settings.acknowledge_replicas)
        self._locks = Locks(self._engine)
        self._follow_files = limits is None
        self.limits = Limits(self._store, self.process, limits)
        """Shared budgets of providers. See `Limits.reserve`."""
        self._rooms: dict[tuple[Tenant, RoomName], Room] = {}
        self.fleet = Fleet(self._store, self.process)

    @classmethod
    def open(
        cls,
        target: Target | None = None,
        *,
        settings: CoordinatorSettings | None = None,
        limits: LimitsConfig | None = None,
    ) -> Opening:
        """Connects: `await Coordinator.open(url)`, or `async with Coordinator.open(url) as coordinator`.

        `target` is a URL or an existing redis-py client; without one the settings (BATON_REDIS_URL) are asked.
        `limits` are the budgets that `coordinator.limits` keeps.
        Raises `InvalidSettings`, `StoreRefused`, `StoreUnavailable`.
        """
        return Opening(cls(target, settings=settings, limits=limits))

    async def start(self) -> Self:
        await self._store.open()
        files = (self.settings.limits_file, self.settings.tenants_file)
        if self._follow_files and any(files):
            try:
                self.limits.follow(FollowedFiles(*files))
            except BaseException:
                await self._store.close()
                raise
        return self

    async def close(self) -> None:
        """Leaves all rooms, gives back all leases, disconnects. A client that was passed in stays open."""
        for room in list(self._rooms.values()):
            await room.close()
        self._rooms.clear()
        await self.limits.close()
        await self._engine.close()
        await self._store.close()

    aclose = close

    async def ping(self) -> None:
        """Returns if Redis answers. Raises `StoreUnavailable` or `StoreRefused`."""
        await self._store.command("PING")

    def room(self, name: str, *, tenant: str = DEFAULT_TENANT, silencer: Silencer | None = None) -> Room:
        """The room of that name (in LiveKit its SID) and tenant; the same object for the same pair.

        With a `silencer` the rule of expiry holds for its floor. Raises `InvalidName`.
        """
        key = (Tenant(tenant), RoomName(name))
        if key not in self._rooms or silencer is not None:
            self._rooms[key] = self._make_room(*key, silencer)
        return self._rooms[key]

    @asynccontextmanager
    async def visit(
        self, name: str, *, tenant: str = DEFAULT_TENANT, silencer: Silencer | None
    ) -> AsyncGenerator[Room]:
        """A room for the time of a block; one that this process is in already is left as it is."""
        known = self._rooms.get((Tenant(tenant), RoomName(name)))
        if known is not None:
            yield known
            return
        room = self._make_room(Tenant(tenant), RoomName(name), silencer)
        try:
            yield room
        finally:
            await room.close()

    def _make_room(self, tenant: Tenant, name: RoomName, silencer: Silencer | None) -> Room:
        settings = self.settings
        return Room(
            self._engine, name, tenant, silencer=silencer, floor_ttl=settings.floor_ttl, keep=settings.keep_floor
        )

    # -- what outlives calls ------------------------------------------------------------------------------------------

    def outbox(self, tenant: str = DEFAULT_TENANT) -> StreamOutbox:
        """The tenant's outbox in Redis, on this process's connection. For a `BackendClient`."""
        return StreamOutbox(self._store, tenant=Tenant(tenant))

    def open_calls(self, tenant: str = DEFAULT_TENANT) -> OpenCalls:
        """The tenant's calls that are being saved."""
        return OpenCalls(self._store, tenant=Tenant(tenant))

    # -- the fleet ----------------------------------------------------------------------------------------------------

    def presence(self, worker: WorkerId, told: Listener) -> Presence:
        """A worker's sign of life: enter `kept()` for as long as the worker runs."""
        return Presence(self.fleet, self._store.subscriber, worker, told)

    def watcher(self, worker: WorkerId, server: CallServer) -> Watcher:
        """A worker's part in the watch over the fleet; `run` it. Lost agents are replaced through `server`."""

        def open_room(lost: FleetAgent, silencer: Silencer) -> AbstractAsyncContextManager[Room]:
            return self.visit(lost.room, tenant=lost.tenant, silencer=silencer)

        settings = self.settings
        policy = Policy(
            fallback=settings.fallback_roles,
            dispatches=settings.takeover_dispatches,
            joins_within=settings.takeover_within,
            most=settings.takeovers_per_room,
        )
        replacement = Replacement(self.fleet, server, open_room, policy=policy)
        return Watcher(self.fleet, self._engine, worker, replacement.recover, hang_limit=settings.hang_limit)

    # -- locks --------------------------------------------------------------------------------------------------------

    def lock(
        self,
        resource: str,
        *,
        ttl: timedelta = LOCK_TTL,
        timeout: timedelta | None = LOCK_TIMEOUT,
        priority: int = 0,
    ) -> AbstractAsyncContextManager[Lease]:
        """`async with coordinator.lock(...) as lease`: see `Locks.hold`."""
        return self._locks.hold(resource, ttl=ttl, timeout=timeout, priority=priority)

    async def acquire_lock(
        self,
        resource: str,
        *,
        ttl: timedelta = LOCK_TTL,
        timeout: timedelta | None = LOCK_TIMEOUT,
        priority: int = 0,
    ) -> Lease:
        """Waits for a lock; release the lease yourself. See `Locks.acquire`."""
        return await self._locks.acquire(resource, ttl=ttl, timeout=timeout, priority=priority)

    # -- context ------------------------------------------------------------------------------------------------------

    async def share_context(self, room: str, context: dict[str, Any], *, tenant: str = DEFAULT_TENANT) -> Snapshot:
        """Merges `context` into what the agents of a room know. See `SharedContext.update`."""
        return await self.room(room, tenant=tenant).context.update(context)

    async def read_context(self, room: str, *, tenant: str = DEFAULT_TENANT) -> Snapshot:
        """What the agents of a room know: `snapshot.data`, `snapshot.version`."""
        return await self.room(room, tenant=tenant).context.read()

    def context(self, scope: str, *, ttl: timedelta = UNATTENDED_TTL) -> SharedContext:
        """A context that is no room's, such as `user:42`; it lives for `ttl` after its last write."""
        keys = self._store.keys.context(scope)
        changes = Changes(self._store.subscriber, keys.everyone)
        return SharedContext(self._store, keys, changes, name=scope, ttl=ttl)
