"""Whose call a job belongs to, as can be told before the job has joined its room."""

from __future__ import annotations

from dataclasses import dataclass

from livekit.protocol import agent as agent_pb

from coordination.ids import RoleName, RoomName, Tenant
from coordination.livekit.dispatch import DispatchMetadata
from coordination.livekit.identity import TenantSources, resolve_tenant
from coordination.livekit.record import SessionRecord

DEFAULT_ROLE = RoleName("agent")
"""The role of an agent without a name: LiveKit dispatches it to every room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOf:
    """The call of a job, by what only a server can have written."""

    name: RoomName
    """What Redis knows the call by: the sid that its room began with."""
    tenant: Tenant
    role: RoleName
    """What the job is for."""
    admitted: bool
    """The job comes for a handoff, to stand by, or to take over: another agent is in the call, or has been."""

    @classmethod
    def read(cls, job: agent_pb.Job, *, tenant: str | None = None) -> CallOf:
        """From a job and its room; `tenant` is the one of all of a worker's calls, if it has one.

        Raises `MetadataError` if what is ours there cannot be read, `InvalidName` for a tenant that is none.
        """
        room = job.room.name
        dispatched = DispatchMetadata.parse(job.metadata, room=room)
        record = SessionRecord.parse(job.room.metadata, room=room)
        sources = TenantSources(room=room, dispatch_metadata=job.metadata, room_metadata=job.room.metadata)
        return cls(
            name=(record.session if record else None) or RoomName(job.room.sid),
            tenant=Tenant(tenant) if tenant else resolve_tenant(sources),
            role=RoleName(job.agent_name) if job.agent_name else DEFAULT_ROLE,
            admitted=dispatched.handoff is not None
            or dispatched.takeover is not None
            or dispatched.standby
            or (record is not None and record.fence is not None),
        )
