"""Sending agents into a room: explicit dispatches, and the metadata that travels with them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta

from livekit import api
from pydantic import JsonValue

from coordination.errors import DispatchFailed
from coordination.ids import AgentId, HandoffId, RoleName, Tenant, check_name
from coordination.livekit.asking import ANSWER_WITHIN, asking
from coordination.livekit.envelope import Ours, look_into, read_ours, write_ours


class _DispatchFields(Ours):
    tenant: str | None = None
    handoff: str | None = None
    takeover: str | None = None
    standby: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchMetadata:
    """What a dispatch says to the agent that it starts. Only a server can write it, so it can be trusted."""

    tenant: Tenant | None = None
    """Whose call it is; None leaves that to the room's metadata."""
    handoff: HandoffId | None = None
    """The handoff that the agent was dispatched for; None for an agent that comes at the begin of a call."""
    takeover: AgentId | None = None
    """The lost agent whose call it continues; None where nobody was lost."""
    standby: bool = False
    """The agent is to stand by, even if the call has no holder yet."""
    foreign: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """What the application put beside our key; kept."""

    @classmethod
    def parse(cls, text: str, *, room: str) -> DispatchMetadata:
        """Reads a dispatch's metadata; those that are empty, or no JSON object, say nothing.

        Raises `MetadataError`, naming room and reason, for what stands under our key and this release cannot read.
        """
        what = "dispatch metadata"
        envelope = look_into(text, what=what, room=room)
        ours = read_ours(_DispatchFields, envelope, what=what, room=room) or _DispatchFields()
        return cls(
            tenant=Tenant(ours.tenant) if ours.tenant else None,
            handoff=HandoffId(ours.handoff) if ours.handoff else None,
            takeover=AgentId(ours.takeover) if ours.takeover else None,
            standby=ours.standby is True,
            foreign=envelope.foreign,
        )

    def format(self) -> str:
        """The JSON text to dispatch with."""
        fields = _DispatchFields(
            tenant=self.tenant, handoff=self.handoff, takeover=self.takeover, standby=self.standby or None
        )
        return write_ours(fields, self.foreign)


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchInfo:
    """A dispatch as LiveKit lists it. It stays listed after its agent has come, and if none comes."""

    id: str
    role: RoleName
    metadata: str


class RoomDispatcher:
    """Dispatches agents into one room; implements `coordination.ports.Dispatcher`.

    A dispatch to a role that no worker serves is accepted by LiveKit and then dropped without a word: whoever waits
    for the agent needs a deadline. Nothing is repeated here, since two dispatches are two agents.
    """

    def __init__(self, client: api.LiveKitAPI, room: str, *, answer_within: timedelta = ANSWER_WITHIN) -> None:
        """`client` stays the caller's, who closes it. `room` is the room's name."""
        self._service = client.agent_dispatch
        self._room = check_name(room, "room")
        self._answer_within = answer_within

    async def dispatch(self, role: RoleName, *, metadata: str) -> str:
        """Returns the id of the dispatch. Raises `DispatchFailed` if LiveKit refuses or does not answer.

        Raises `InvalidName` for an empty role: to LiveKit it means the agents without a name, in every room.
        """
        check_name(role, "role")
        request = api.CreateAgentDispatchRequest(agent_name=role, room=self._room, metadata=metadata)
        async with self._asking(f"dispatch {role!r} to"):
            return (await self._service.create_dispatch(request)).id

    async def list(self) -> tuple[DispatchInfo, ...]:
        """All dispatches of the room. Raises `DispatchFailed`, also for a room that is gone."""
        async with self._asking("list the dispatches of"):
            found = await self._service.list_dispatch(self._room)
        return tuple(DispatchInfo(id=each.id, role=RoleName(each.agent_name), metadata=each.metadata) for each in found)

    async def delete(self, dispatch: str) -> bool:
        """Takes a dispatch back, so that it starts no agent any more; an agent in the room stays.

        Returns whether there was one. Raises `DispatchFailed` if LiveKit refuses or does not answer.
        """
        try:
            async with self._asking("take a dispatch back from"):
                await self._service.delete_dispatch(dispatch, self._room)
        except DispatchFailed as failure:
            if isinstance(failure.__cause__, api.TwirpError) and failure.__cause__.status == 404:
                return False
            raise
        return True

    def _asking(self, purpose: str) -> AbstractAsyncContextManager[None]:
        failure = f"LiveKit did not {purpose} room {self._room!r}"
        return asking(failure, error=DispatchFailed, within=self._answer_within)
