"""The two-phase handoff: offer, claim, ready, commit; or abort. Make before break.

The holder keeps the floor, and the caller, until `commit` moves the floor and closes the record in one script; no path
leaves a room without a holder. A target that died after saying ready is noticed by the commit itself (nobody receives
the grant), or at the end of its provisional window.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, cast

from coordination.errors import HandoffInProgress, HandoffRefused, StaleFence, StoreError
from coordination.handoff.context import HandoffContext
from coordination.ids import AgentId, HandoffId, RequestId, RoleName, check_name, new_request_id
from coordination.leases.engine import LeaseEngine
from coordination.leases.lease import Lease
from coordination.leases.request import MICROSECONDS
from coordination.metrics import METRICS
from coordination.room.changes import Changes, Kind
from coordination.room.floor import Floor
from coordination.store.keys import UNATTENDED_TTL, RoomKeys
from coordination.store.scripts import Script
from coordination.store.store import PATIENCE

OFFER: Final = Script.load("handoff/offer")
STEP: Final = Script.load("handoff/step")
COMMIT: Final = Script.load("handoff/commit")
ABORT: Final = Script.load("handoff/abort")

COMMIT_WITHIN: Final = timedelta(seconds=60)
"""How long a ready target may be kept waiting before another handoff may replace this one."""


class HandoffState(StrEnum):
    """Where a handoff is; the last two are final."""

    OFFERED = "offered"
    CLAIMED = "claimed"
    READY = "ready"
    COMMITTED = "committed"
    ABORTED = "aborted"


class HandoffKind(StrEnum):
    """How the target came into the room."""

    STANDBY = "standby"
    DISPATCHED = "dispatched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """One handoff as the store knows it; times are the server's."""

    id: HandoffId
    from_agent: AgentId
    from_role: RoleName
    to_role: RoleName
    to_agent: AgentId | None
    state: HandoffState
    kind: HandoffKind
    context: HandoffContext
    fence: int
    """The holder's when it was offered; the new holder's once it is committed."""
    reason: str
    """Why it was aborted; empty otherwise."""
    offered_at: datetime
    ready_at: datetime | None
    committed_at: datetime | None

    @property
    def open(self) -> bool:
        return self.state not in (HandoffState.COMMITTED, HandoffState.ABORTED)


class Handoffs:
    """The handoffs of one room; at most one is open at a time."""

    def __init__(self, engine: LeaseEngine, keys: RoomKeys, changes: Changes, floor: Floor) -> None:
        self._store = engine.store
        self._engine = engine
        self._keys = keys
        self._changes = changes
        self._floor = floor
        self._options = (keys.channel, keys.everyone, "1")

    @staticmethod
    def grant_id(handoff: str) -> RequestId:
        """The request id that the grant of this handoff is pushed to: expect it before saying ready."""
        return RequestId(f"handoff-{handoff}")

    async def offer(self, lease: Lease, *, to_role: str, context: HandoffContext, deadline: timedelta) -> Handoff:
        """Offers the floor to a role; the target has `deadline` to claim it and to get ready.

        Raises `StaleFence` if the lease is not the floor's current one, `HandoffInProgress`, `InvalidName`,
        `InvalidArgument` for a context that is no JSON or too large.
        """
        check_name(to_role, "role")
        handoff = new_request_id()
        life = int((deadline + UNATTENDED_TTL).total_seconds() * 1000)
        args = (lease.request_id, handoff, to_role, context.encode(), _us(deadline), lease.request.role, life)
        reply = await self._run(OFFER, *args)
        if reply[0] == 0:
            METRICS.refused_write("handoff")
            raise StaleFence(lease.resource, lease.fence, reply[1])
        if reply[0] == 2:
            raise HandoffInProgress(reply[1].decode(), reply[2].decode())
        offered = await self.current()
        if offered is None or offered.id != handoff:
            raise HandoffRefused(f"The handoff to {to_role!r} was replaced as soon as it was offered.")
        return offered

    async def claim(self, handoff_id: str, *, agent: str, kind: HandoffKind = HandoffKind.STANDBY) -> Handoff:
        """Takes the offer for this agent; exactly one agent can. `kind` says whether it was dispatched for it.
        Raises `HandoffRefused` for all others."""
        await self._step(handoff_id, "claimed", agent, kind)
        handoff = await self.current()
        if handoff is None or handoff.id != handoff_id:
            raise HandoffRefused(f"The handoff {handoff_id} is gone.")
        return handoff

    async def ready(self, handoff_id: str, *, agent: str) -> RequestId:
        """Says that the target is prepared; returns the request id that the floor is granted to.

        Call `floor.expect_grant` with it next; a grant that is pushed before that is kept for it. Raises
        `HandoffRefused` if the handoff is over or claimed by another agent.
        """
        await self._floor.listen()
        self._engine.anticipate(self.grant_id(handoff_id))
        await self._step(handoff_id, "ready", agent)
        return self.grant_id(handoff_id)

    async def commit(self, lease: Lease, handoff_id: str) -> int:
        """Moves the floor to the target and ends the lease with reason `MOVED`; returns the new fence.

        The caller of this has fallen silent before. Raises `StaleFence` if the lease is not the current one,
        `HandoffRefused` if the target is not ready or does not listen any more; the floor stays where it was.
        Raises `StoreError`, or is cancelled, without knowing what became of it: then the lease is not held until the
        server has said whose the floor is.
        """
        target = self.grant_id(handoff_id)
        try:
            reply = await self._run(COMMIT, lease.request_id, handoff_id, target, lease.request.ttl_us)
        except (StoreError, asyncio.CancelledError):
            self._floor.doubt(lease)
            raise
        if reply[0] == 0:
            METRICS.refused_write("handoff")
            raise StaleFence(lease.resource, lease.fence, reply[1])
        if reply[0] == 2:
            raise HandoffRefused(f"The handoff {handoff_id} is {reply[1].decode()}, not ready.")
        if reply[0] == 3:
            raise HandoffRefused(f"The agent that was ready for the handoff {handoff_id} does not answer any more.")
        self._floor.moved(lease)
        self._engine.keeper.watch_grant(self._keys.floor, self._options, reply[1], reply[2])
        return int(reply[1])

    async def abort(self, handoff_id: str, *, reason: str) -> bool:
        """Ends an open handoff; False if it was over already."""
        return bool(await self._run(ABORT, handoff_id, " ".join(reason.split())[:200]))

    async def current(self) -> Handoff | None:
        """The open handoff, or the last one; None if the room has had none."""
        fields = cast("list[bytes]", await self._store.command("HGETALL", self._keys.handoff, patience=PATIENCE))
        return _parse(fields) if fields else None

    async def watch(self) -> AsyncIterator[Handoff]:
        """Yields the current handoff, if there is one, and each of its later states; some may be skipped."""
        async for handoff in self._changes.watch(Kind.HANDOFF, self.current):
            if handoff is not None:
                yield handoff

    async def _step(self, handoff_id: str, step: str, agent: str, kind: str = "") -> None:
        check_name(agent, "agent")
        reply = await self._run(STEP, handoff_id, step, agent, self._engine.process, _us(COMMIT_WITHIN), kind)
        if reply[0] != 1:
            taken = f" by {reply[2].decode()!r}" if reply[2] else ""
            raise HandoffRefused(f"The handoff {handoff_id} cannot become {step}: it is {reply[1].decode()}{taken}.")

    async def _run(self, script: Script, *args: str | int) -> Any:
        return await self._store.run(script, (*self._keys.floor.keys, self._keys.handoff), (*self._options, *args))


def _us(duration: timedelta) -> int:
    return int(duration.total_seconds() * MICROSECONDS)


def _at(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromtimestamp(int(text) / MICROSECONDS, UTC)


def _parse(fields: list[bytes]) -> Handoff:
    values = {fields[i].decode(): fields[i + 1].decode() for i in range(0, len(fields), 2)}
    to_agent = values.get("to_agent")
    return Handoff(
        id=HandoffId(values["id"]),
        from_agent=AgentId(values["from_agent"]),
        from_role=RoleName(values["from_role"]),
        to_role=RoleName(values["to_role"]),
        to_agent=AgentId(to_agent) if to_agent else None,
        state=HandoffState(values["state"]),
        kind=HandoffKind(values.get("kind", "standby")),
        context=HandoffContext.decode(values["context"]),
        fence=int(values["fence"]),
        reason=values.get("why", ""),
        offered_at=datetime.fromtimestamp(int(values["offered_at"]) / MICROSECONDS, UTC),
        ready_at=_at(values.get("ready_at")),
        committed_at=_at(values.get("committed_at")),
    )
