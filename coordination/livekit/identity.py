"""Who is who: agents among the participants of a room, and the tenant that a call belongs to.

Invariant: nothing here trusts what a caller can write. An agent is a participant whose *kind* the server vouches for;
the tenant comes from metadata that only a server can set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from livekit import rtc

from coordination.ids import DEFAULT_TENANT, AgentId, Tenant, check_name
from coordination.livekit.dispatch import DispatchMetadata
from coordination.livekit.record import SessionRecord

AGENT_PREFIX = "agent-"
"""LiveKit's agents framework names the participant of a job `agent-<job id>`, unless its job request says otherwise."""
AGENT_ATTRIBUTE = "baton.agent"
"""Participant attribute in which an agent that joined under an identity of its own says which job it is. Counts only on
participants of kind agent."""


def agent_identity(agent: AgentId) -> str:
    """The identity under which the job `agent` joins its room by default."""
    return AGENT_PREFIX + agent


def agent_of(identity: str) -> AgentId | None:
    """The job behind a participant with a default identity; None for any other."""
    job = identity.removeprefix(AGENT_PREFIX)
    return AgentId(job) if job and job != identity else None


async def declare(room: rtc.Room, agent: AgentId) -> None:
    """Says in the room which job the local participant is, if its identity does not; once, after joining.

    Without it an agent with an identity of its own could not be found to be silenced.
    """
    if room.local_participant.identity != agent_identity(agent):
        await room.local_participant.set_attributes({AGENT_ATTRIBUTE: agent})


def is_agent(participant: rtc.Participant | None) -> bool:
    """Whether the server vouches for the participant as an agent. None, a message by a server, is not one."""
    return participant is not None and participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSources:
    """What only a server can have written about a call: what a tenant may be read from."""

    room: str
    """The room's name."""
    dispatch_metadata: str
    room_metadata: str


TenantResolver = Callable[[TenantSources], Tenant]
"""Replaces the rule of `resolve_tenant`. Called once per job, before anything is read from Redis."""


def resolve_tenant(sources: TenantSources) -> Tenant:
    """The tenant named by the dispatch, else by the room's record, else `default`.

    Raises `MetadataError` if what is ours there cannot be read, `InvalidName` if the tenant it names is none.
    """
    room = sources.room
    dispatched = DispatchMetadata.parse(sources.dispatch_metadata, room=room).tenant
    record = SessionRecord.parse(sources.room_metadata, room=room)
    tenant = dispatched or (record.tenant if record else None) or DEFAULT_TENANT
    return Tenant(check_name(tenant, "tenant"))
