"""LiveKit as recovery sees it: any room of the server, from a process that is in none of them."""

from __future__ import annotations

from collections.abc import Mapping

from livekit import api

from coordination.errors import DispatchFailed
from coordination.ids import AgentId, RoleName, Tenant
from coordination.livekit.asking import asking, is_absent
from coordination.livekit.dispatch import DispatchMetadata, RoomDispatcher
from coordination.livekit.silence import RoomSilencer

CALLER_KINDS = (
    api.ParticipantInfo.Kind.STANDARD,
    api.ParticipantInfo.Kind.SIP,
    api.ParticipantInfo.Kind.CONNECTOR,
)
"""Kinds of participants that an agent may have as its caller, as in the agents framework."""


class LiveKitCalls:
    """Implements `coordination.ports.CallServer`. `client` stays the caller's, who closes it after this."""

    def __init__(self, client: api.LiveKitAPI) -> None:
        self._client = client

    def silencer(self, room: str, *, identities: Mapping[AgentId, str]) -> RoomSilencer:
        silencer = RoomSilencer(self._client, room)
        for agent, identity in identities.items():
            if identity:
                silencer.introduce(agent, identity)
        return silencer

    async def has_caller(self, room: str) -> bool:
        try:
            async with asking(f"LiveKit did not list the participants of room {room!r}", error=DispatchFailed):
                listed = await self._client.room.list_participants(api.ListParticipantsRequest(room=room))
        except DispatchFailed as failure:
            if is_absent(failure.__cause__):
                return False
            raise
        return any(
            each.kind in CALLER_KINDS and each.state != api.ParticipantInfo.State.DISCONNECTED
            for each in listed.participants
        )

    async def bring(self, role: RoleName, room: str, *, tenant: Tenant, instead_of: AgentId) -> None:
        metadata = DispatchMetadata(tenant=tenant, takeover=instead_of).format()
        await RoomDispatcher(self._client, room).dispatch(role, metadata=metadata)
