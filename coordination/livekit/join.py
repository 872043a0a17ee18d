"""Taking a seat in a call: what a job was dispatched for, whose call it is, and whether its role is still free."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from livekit.agents import JobContext

from coordination.ids import AgentId, HandoffId, RoleName, RoomName, Tenant, WorkerId
from coordination.livekit.dispatch import DispatchMetadata
from coordination.livekit.identity import TenantResolver, TenantSources, resolve_tenant
from coordination.livekit.job_call import DEFAULT_ROLE
from coordination.livekit.linking import find_caller
from coordination.livekit.process import shared_coordinator
from coordination.livekit.record import SessionRecord
from coordination.livekit.saving.shared import open_saving
from coordination.livekit.silence import RoomSilencer
from coordination.settings import CoordinatorSettings

if TYPE_CHECKING:
    from coordination.livekit.seat import Seat
    from coordination.livekit.session import CoordinatedSession

WORKER_ID = "BATON_WORKER_ID"
"""The worker's own id, set before its job processes start; LiveKit's goes stale when a worker registers again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPlan:
    """What is known about a job before it takes its seat."""

    agent: AgentId
    role: RoleName
    worker: WorkerId
    tenant: Tenant
    identity: str
    handoff: HandoffId | None
    """The handoff it was dispatched for."""
    takeover: AgentId | None
    """The lost agent whose call it was dispatched to continue."""
    standby: bool
    """Dispatched to stand by, even if the call has no holder yet."""
    caller: str | None
    seen: int
    """The fence in the room's metadata: what is granted from now on is higher, whatever Redis knows. 0 if none."""
    conversation: str | None
    user: str | None
    """What the room's record says of them; see `coordination.livekit.saving.shared`."""
    session: RoomName | None
    """What Redis knows the call by, where the session record says so; else it is the room's sid."""
    settings: CoordinatorSettings

    @property
    def stands_by(self) -> bool:
        return self.standby or self.handoff is not None


def plan_join(ctx: JobContext, settings: CoordinatorSettings, resolver: TenantResolver = resolve_tenant) -> JoinPlan:
    """Reads job, dispatch and room. The room must be connected.

    Raises `MetadataError` if what is ours there cannot be read.
    """
    job, name = ctx.job, ctx.room.name
    dispatched = DispatchMetadata.parse(job.metadata, room=name)
    sources = TenantSources(room=name, dispatch_metadata=job.metadata, room_metadata=ctx.room.metadata)
    record = SessionRecord.parse(ctx.room.metadata, room=name)
    return JoinPlan(
        agent=AgentId(job.id),
        role=RoleName(job.agent_name) if job.agent_name else DEFAULT_ROLE,
        worker=WorkerId(os.environ.get(WORKER_ID) or ctx.worker_id or f"process-{os.getpid()}"),
        tenant=Tenant(settings.tenant) if settings.tenant else resolver(sources),
        identity=ctx.room.local_participant.identity,
        handoff=dispatched.handoff,
        takeover=dispatched.takeover,
        standby=dispatched.standby,
        caller=find_caller(ctx.room, record),
        seen=(record.fence if record else None) or 0,
        conversation=record.conversation if record else None,
        user=record.user if record else None,
        session=record.session if record else None,
        settings=settings,
    )


async def take_seat(
    session: CoordinatedSession[Any],
    ctx: JobContext,
    *,
    settings: CoordinatorSettings,
    skills: tuple[str, ...] = (),
) -> Seat:
    """Joins the call's roster under a claim of the role. Raises `RoleTaken` if a live agent serves it already."""
    from coordination.livekit.seat import Seat

    plan = plan_join(ctx, settings)
    name = plan.session or RoomName(await ctx.room.sid)
    async with AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(shared_coordinator(ctx, settings))
        silencer = RoomSilencer(ctx.api, ctx.room.name)
        stack.push_async_callback(silencer.aclose)
        room = coordinator.room(name, tenant=plan.tenant, silencer=silencer)
        stack.push_async_callback(room.close)
        if plan.seen:
            room.floor.witness(plan.seen, "")
        membership = await room.roster.join(
            agent=plan.agent,
            role=plan.role,
            worker=plan.worker,
            skills=skills,
            identity=plan.identity,
            # Who is sent to stand by is a spare: it may be there beside the agent that serves the role.
            claim=not plan.standby,
        )
        saving = await open_saving(stack, coordinator, room, plan, ctx.room)
        seat = Seat(session, ctx, room, membership, plan, silencer, coordinator.fleet, saving)
        seat.resources = stack.pop_all()
    return seat
