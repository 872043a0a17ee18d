"""The floor: the right to speak to the caller in a room. At most one agent holds it (invariant 1).

The words are those of BFCP (RFC 8855): request, grant, release, revoke. Larger priorities go first, equal ones in order
of arrival. In a LiveKit room (`silencer` given) the rule of expiry holds: a floor whose lease expired is granted only
after the media server confirmed that its old holder is silent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from coordination.errors import CoordinationError, FloorTimeout, InvalidArgument, LeaseTimeout
from coordination.ids import AgentId, ProcessId, RequestId, RoleName, check_name, new_request_id
from coordination.leases.engine import LeaseEngine
from coordination.leases.holding import holding
from coordination.leases.lease import Lease, LossReason
from coordination.leases.request import MICROSECONDS, LeaseRequest
from coordination.ports import Silenced, Silencer
from coordination.room.changes import Changes, Kind
from coordination.store.keys import RoomKeys
from coordination.store.scripts import Script

STATE: Final = Script.load("lease/state")
REVOKE: Final = Script.load("lease/revoke")
MOVE: Final = Script.load("lease/move")

FLOOR_TTL: Final = timedelta(seconds=2)
FLOOR_TIMEOUT: Final = timedelta(seconds=10)
YIELD_WITHIN: Final = timedelta(seconds=2)
"""How long an operator's grant waits for the revoked holder to fall silent: its half second, and being silenced."""


class NotPresent(CoordinationError):
    """The agent that should get the floor does not listen in this room."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        super().__init__(f"Agent {agent!r} is not in the room or does not answer: look at `baton agents`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """A request in the floor's queue."""

    request_id: RequestId
    agent: AgentId
    role: RoleName
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorState:
    """The floor at one moment, by the server's clock."""

    holder: AgentId | None
    role: RoleName | None
    fence: int
    """The last fence ever granted here; 0 if there was none."""
    since: int
    """Server time of the grant in microseconds; 0 while the floor is free."""
    expires_in: timedelta | None
    """None while the floor is free. Negative: the holder is late."""
    provisional: bool
    """Granted by push, and the grantee has not renewed yet."""
    condemned: bool
    """The holder may not renew any more: it was revoked, or it is being silenced."""
    queue: tuple[Waiter, ...]
    shut_in: timedelta | None = None
    """Until the holder's own deadline is over, whatever it was told; None while the floor is free."""
    reason: str = ""
    """Why the holder was given the floor, if somebody else moved it there: an operator, or a recovery."""


class Floor:
    """The floor of one room, as one process sees it."""

    def __init__(
        self,
        engine: LeaseEngine,
        keys: RoomKeys,
        changes: Changes,
        *,
        name: str,
        silencer: Silencer | None,
        ttl: timedelta = FLOOR_TTL,
        keep: bool = True,
    ) -> None:
        self._engine = engine
        self._keys = keys.floor
        self._changes = changes
        self._name = name
        self._silencer = silencer
        self._ttl = ttl
        # Without somebody who can silence a holder from outside, going on without the store would be a second voice.
        self._keep = keep and silencer is not None

    # -- asking -------------------------------------------------------------------------------------------------------

    async def request(
        self,
        agent: str,
        *,
        role: str = "",
        priority: int = 0,
        timeout: timedelta | None = FLOOR_TIMEOUT,
        request_id: str | None = None,
    ) -> Lease:
        """Waits for the floor.

        Raises `FloorTimeout` after `timeout` (None waits without a bound), `StoreUnavailable`, `InvalidName`. A request
        that is repeated with the same `request_id` gets the same grant. Cancelled, it leaves nothing behind.
        """
        request = self._request(agent, role=role, priority=priority, request_id=request_id)
        try:
            return await self._engine.acquire(request, timeout)
        except LeaseTimeout as error:
            raise FloorTimeout(error.resource, error.waited) from error

    async def try_request(self, agent: str, *, role: str = "", priority: int = 0) -> Lease | None:
        """Asks once: the lease, or None if somebody else holds the floor or waits for it."""
        return await self._engine.attempt(self._request(agent, role=role, priority=priority))

    @asynccontextmanager
    async def hold(
        self, agent: str, *, role: str = "", priority: int = 0, timeout: timedelta | None = FLOOR_TIMEOUT
    ) -> AsyncGenerator[Lease]:
        """`request` as a scope: released at its end, and cancelled with `LeaseLost` if the floor is lost before."""
        scope = holding(self.request(agent, role=role, priority=priority, timeout=timeout))
        async with scope as lease:
            yield lease

    async def expect_grant(
        self, agent: str, *, role: str = "", request_id: str, timeout: timedelta | None = FLOOR_TIMEOUT
    ) -> Lease:
        """Waits for a grant that somebody else moves to `request_id`: the target of a handoff, or of an operator.

        Raises `FloorTimeout`. Cancelled or timed out, a grant that comes all the same is passed on.
        """
        request = self._request(agent, role=role, request_id=request_id)
        try:
            return await self._engine.expect(request, timeout)
        except LeaseTimeout as error:
            raise FloorTimeout(error.resource, error.waited) from error

    async def take_over(self, agent: str, *, role: str = "") -> Lease | None:
        """Claims the floor of a holder whose lease has expired, or a free one; None if the holder is alive after all.

        In a LiveKit room the old holder is silenced at the media server first. This process condemns nobody within a
        second of its own (re)connect: the same outage may have kept the holder from renewing.
        """
        return await self.try_request(agent, role=role)

    def accept_grants(self, agent: str, *, role: str = "") -> RequestId:
        """The request id under which `grant` moves the floor to this agent."""
        return RequestId(f"grant-{check_name(agent, 'agent')}")

    # -- looking ------------------------------------------------------------------------------------------------------

    async def state(self) -> FloorState:
        """The floor as the server knows it now."""
        now, fields, waiting = await self._engine.store.run(STATE, self._keys.keys)
        state = _parse_state(now, fields, waiting)
        # A standby that watches the floor must not take it from a server that has just forgotten the holder.
        self._engine.keeper.saw(self._keys.lease, state.fence)
        return state

    async def watch(self) -> AsyncIterator[FloorState]:
        """Yields the state now, and again after each change. States may be skipped, never the latest one."""
        async for state in self._changes.watch(Kind.FLOOR, self.state):
            yield state

    # -- policy, supervisor, operator ---------------------------------------------------------------------------------

    async def revoke(self, *, reason: str) -> bool:
        """Takes the floor from whoever holds it; False if nobody does.

        In a LiveKit room the holder has half a second to fall silent and release; after that it is silenced. Elsewhere
        the next waiter gets the floor at once.
        """
        return await self._revoke(0, reason)

    async def _revoke(self, fence: int, reason: str) -> bool:
        """Revokes the lease of that fence; 0 stands for whichever is current."""
        held, current, _, granted, window = await self._engine.store.run(
            REVOKE, self._keys.keys, (*self._options, fence, _plain(reason), self._expiry)
        )
        if held:
            self._engine.keeper.saw(self._keys.lease, current)
        self._engine.keeper.watch_grant(self._keys, self._options, granted, window)
        return bool(held)

    async def grant(self, agent: str, process: str, *, role: str = "", reason: str = "operator") -> int:
        """Moves the floor to an agent that waits in `expect_grant(request_id=accept_grants(agent))`; the new fence.

        A holder is revoked first and has to fall silent. Raises `NotPresent` if the agent's process does not listen,
        `FloorTimeout` if the holder could not be made to yield.
        """
        try:
            async with asyncio.timeout(YIELD_WITHIN.total_seconds()):
                return await self._grant(agent, process, role, reason)
        except TimeoutError:
            raise FloorTimeout(self._name, YIELD_WITHIN.total_seconds()) from None

    async def condemn(self, agent: str, *, reason: str) -> int | None:
        """Takes the right to renew from `agent`, if it holds the floor: its fence, or None if it does not hold it.

        In a LiveKit room the floor stays closed until `free` says that the agent is silent; elsewhere the next waiter
        has it at once.
        """
        state = await self.state()
        if state.holder != agent:
            return None
        if not state.condemned:
            await self._revoke(state.fence, reason)
        return state.fence

    async def free(self, fence: int, outcome: Silenced) -> None:
        """Says that the condemned holder of `fence` is silent: the next waiter is granted the floor.

        Raises `InvalidArgument` for an outcome that confirms nothing.
        """
        if not outcome.confirmed:
            raise InvalidArgument(
                f"A floor is freed only when its holder is silent; {outcome.value!r} confirms nothing."
            )
        await self._engine.free(self._keys, self._options, fence, outcome)

    async def is_shut(self, fence: int) -> bool:
        """Whether the condemned holder of `fence` has closed its own gate: policy `silence`, past its own deadline."""
        if self._keep:
            return False
        state = await self.state()
        return state.fence == fence and state.shut_in is not None and state.shut_in <= timedelta(0)

    async def pass_to(self, agent: str, process: str, *, role: str = "", reason: str) -> int | None:
        """Grants a *free* floor to an agent that waits in `expect_grant(request_id=accept_grants(agent))`.

        The new fence, or None if somebody holds the floor. Raises `NotPresent` if the agent's process does not listen.
        """
        outcome, fence, again = await self._move(agent, process, role, reason)
        if outcome == 0:
            raise NotPresent(agent)
        if outcome != 1:
            return None
        self._engine.keeper.watch_grant(self._keys, self._options, fence, again)
        return fence

    async def _move(self, agent: str, process: str, role: str, reason: str) -> tuple[int, int, int]:
        target = (self.accept_grants(agent), agent, process, role, int(self._ttl.total_seconds() * MICROSECONDS))
        args = (*self._options, *target, _plain(reason), self._expiry)
        outcome, fence, again = await self._engine.store.run(MOVE, self._keys.keys, args)
        return int(outcome), int(fence), int(again)

    async def _grant(self, agent: str, process: str, role: str, reason: str) -> int:
        while True:
            outcome, fence, again = await self._move(agent, process, role, reason)
            if outcome == 0:
                raise NotPresent(agent)
            if outcome == 1:
                self._engine.keeper.watch_grant(self._keys, self._options, fence, again)
                return fence
            if not await self.revoke(reason=reason):
                # Revoked already, and silent in a moment; or late, and somebody has to silence it.
                await self._clear_expired()
            await asyncio.sleep(min(0.1, again / MICROSECONDS + 0.01))

    async def _clear_expired(self) -> None:
        state = await self.state()
        if state.expires_in is not None and state.expires_in < timedelta(0):
            lease = await self.try_request(f"operator-{self._engine.process}")
            if lease is not None:
                await lease.release()

    # -- the room as witness ------------------------------------------------------------------------------------------

    def witness(self, fence: int, agent: str) -> None:
        """Tells that a grant with this fence was announced in the room: from now on requests carry it.

        If it is higher than that of a lease held here, the lease is not held until the server explained it: it is lost,
        or it is renewed under a fence that is higher still. Whoever holds nothing remembers it: a server that does not
        know it is empty or older, and must not grant before the holder had its chance to claim.
        """
        self._engine.keeper.saw(self._keys.lease, fence)
        for lease in list(self._own_leases()):
            if fence > lease.fence and lease.agent != agent:
                self._engine.keeper.doubt(lease, fence)

    def own_fence(self) -> int | None:
        """The fence under which this process holds the floor; None if it does not."""
        return next((int(lease.fence) for lease in self._own_leases()), None)

    def doubt(self, lease: Lease) -> None:
        """The lease is not held until the server has vouched for it again: it may have been moved or replaced."""
        self._engine.keeper.doubt(lease, lease.fence)

    def moved(self, lease: Lease) -> None:
        """Ends a lease that a handoff has moved to another agent."""
        self._engine.keeper.lose(lease, LossReason.MOVED)

    async def listen(self) -> None:
        """Subscribes this process's channel in the room, so that grants can reach it."""
        await self._engine.listen(self._keys)

    async def close(self) -> None:
        """Gives back what this process holds of the floor, and stops listening."""
        for lease in list(self._own_leases()):
            await lease.release()
        await self._engine.unlisten(self._keys)

    def _own_leases(self) -> Iterator[Lease]:
        for lease in self._engine.keeper.held.values():
            if lease.request.keys.lease == self._keys.lease:
                yield lease

    def _request(self, agent: str, *, role: str = "", priority: int = 0, request_id: str | None = None) -> LeaseRequest:
        check_name(agent, "agent")
        if role:
            check_name(role, "role")
        if request_id is not None and (" " in request_id or not request_id):
            raise InvalidArgument(f"{request_id!r} cannot be a request id: it is empty or holds a space.")
        return LeaseRequest(
            resource=f"the floor of {self._name}",
            kind="floor",
            keys=self._keys,
            id=RequestId(request_id) if request_id is not None else new_request_id(),
            agent=AgentId(agent),
            process=ProcessId(self._engine.process),
            role=RoleName(role),
            ttl=self._ttl,
            priority=priority,
            keep=self._keep,
            silencer=self._silencer,
        )

    @property
    def _expiry(self) -> str:
        return "silence" if self._silencer is not None else "free"

    @property
    def _options(self) -> tuple[str, str, str]:
        return self._keys.channel, self._keys.everyone, "1"


def _plain(reason: str) -> str:
    """A reason in one line of bounded length: it is stored with the event."""
    return " ".join(reason.split())[:200]


def _parse_state(now: int, fields: list[bytes], waiting: list[bytes]) -> FloorState:
    values = {fields[i].decode(): fields[i + 1].decode() for i in range(0, len(fields), 2)}
    holder = values.get("agent") if "rid" in values else None
    queue: list[Waiter] = []
    for i in range(0, len(waiting), 2):
        entry: dict[str, Any] = json.loads(waiting[i + 1])
        queue.append(
            Waiter(
                request_id=RequestId(waiting[i].decode()),
                agent=AgentId(entry["agent"]),
                role=RoleName(entry["role"]),
                priority=int(entry["priority"]),
            )
        )
    return FloorState(
        holder=AgentId(holder) if holder is not None else None,
        role=RoleName(values["role"]) if holder is not None and values.get("role") else None,
        fence=int(values.get("f", "0")),
        since=int(values.get("since", "0")) if holder is not None else 0,
        expires_in=timedelta(microseconds=int(values["until"]) - now) if holder is not None else None,
        provisional=values.get("prov", "0") != "0",
        condemned=values.get("condemned") == "1",
        queue=tuple(queue),
        shut_in=(
            timedelta(microseconds=int(values.get("shut", values["until"])) - now) if holder is not None else None
        ),
        reason=values.get("why", "") if holder is not None else "",
    )


__all__ = ["Floor", "FloorState", "NotPresent", "Waiter"]
