"""A real livekit-server on loopback, and rooms in it, for the tests of this folder."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from livekit import api, rtc

from coordination.dev.livekit_server import LiveKitServer as DevelopmentServer

Kind = Literal["standard", "agent", "sip", "egress", "ingress"]


class LiveKitServer(DevelopmentServer):
    """The development server, and tokens and clients for it.

    `url` is for rooms and workers alike, `environment` holds LiveKit's own variables for a child process;
    `kill()` and `start_now()` make an outage, and keep address and key.
    """

    def token(self, room: str, identity: str, *, kind: Kind = "standard", **claims: str) -> str:
        """A token to join `room`, an agent's as a job has it. `claims`: name, metadata, and else attributes."""
        agent = kind == "agent" or None
        grants = api.VideoGrants(room_join=True, room=room, agent=agent, can_update_own_metadata=agent)
        token = (
            api.AccessToken(self.api_key, self.api_secret)
            .with_identity(identity)
            .with_kind(kind)
            .with_name(claims.pop("name", ""))
            .with_metadata(claims.pop("metadata", ""))
            .with_grants(grants)
        )
        if claims:
            token = token.with_attributes(claims)
        return token.to_jwt()

    def client(self) -> api.LiveKitAPI:
        """A server API client; the caller closes it (`await client.aclose()`), or uses `LiveRoom.api`."""
        return api.LiveKitAPI(self.url, self.api_key, self.api_secret)


@dataclass(slots=True)
class LiveRoom:
    """One room of the server, created through its API, and those that joined it through `join`."""

    server: LiveKitServer
    name: str
    sid: str
    api: api.LiveKitAPI
    created_with: str = ""
    """The metadata that it began with; a job is dispatched with them."""
    _joined: list[rtc.Room] = field(default_factory=list[rtc.Room])

    async def join(self, identity: str, *, kind: Kind = "standard", **claims: str) -> rtc.Room:
        """Joins as a participant until the end of the test; agents' jobs are of kind "agent"."""
        room = rtc.Room()
        await room.connect(self.server.url, self.server.token(self.name, identity, kind=kind, **claims))
        self._joined.append(room)
        return room

    async def identities(self) -> set[str]:
        """Who is in the room, according to the server."""
        answer = await self.api.room.list_participants(api.ListParticipantsRequest(room=self.name))
        return {participant.identity for participant in answer.participants}

    async def metadata(self) -> str:
        """The room's metadata, according to the server."""
        answer = await self.api.room.list_rooms(api.ListRoomsRequest(names=[self.name]))
        return answer.rooms[0].metadata

    async def close(self) -> None:
        for room in self._joined:
            if room.isconnected():
                await room.disconnect()
        self._joined.clear()


RoomFactory = Callable[..., Awaitable[LiveRoom]]


async def create_room(
    server: LiveKitServer, client: api.LiveKitAPI, *, name: str | None = None, metadata: str = ""
) -> LiveRoom:
    name = name or f"room-{secrets.token_hex(4)}"
    created = await client.room.create_room(api.CreateRoomRequest(name=name, metadata=metadata, empty_timeout=60))
    return LiveRoom(server=server, name=name, sid=created.sid, api=client, created_with=metadata)
