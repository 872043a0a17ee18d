"""What LiveKit says about rooms and who is in them, for the command line."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from livekit import api

from coordination.dev.livekit_server import ExternalLiveKit
from coordination.ids import DEFAULT_TENANT, RoomName, Tenant
from coordination.livekit.asking import LiveKitUnavailable, asking
from coordination.livekit.envelope import MetadataError
from coordination.livekit.record import SessionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRoom:
    """A room that is open, and the session record in its metadata."""

    name: str
    sid: RoomName
    """What Redis knows the call by: the sid that the room had when the call began."""
    participants: int
    opened_at: datetime
    tenant: Tenant
    role: str | None
    """The role that held the floor when the record was written; None for a room without a record."""
    fence: int | None
    caller: str | None
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Someone in a room, as LiveKit lists them."""

    identity: str
    kind: str
    """"agent", "standard", "sip" …"""
    state: str
    attributes: dict[str, str]


async def list_rooms(server: ExternalLiveKit, *, name: str | None = None) -> list[OpenRoom]:
    """All open rooms, or the one of that name. Raises `LiveKitUnavailable` if LiveKit does not answer or refuses."""
    async with _client(server) as client, asking(f"LiveKit at {server.url} lists no rooms", error=LiveKitUnavailable):
        answer = await client.room.list_rooms(api.ListRoomsRequest(names=[name] if name else None))
    return sorted((_open_room(room) for room in answer.rooms), key=lambda room: room.opened_at)


async def list_participants(server: ExternalLiveKit, room: str) -> list[Participant]:
    """Who is in the room. Raises `LiveKitUnavailable` if LiveKit does not answer or refuses."""
    failure = f"LiveKit at {server.url} does not say who is in {room}"
    async with _client(server) as client, asking(failure, error=LiveKitUnavailable):
        answer = await client.room.list_participants(api.ListParticipantsRequest(room=room))
    return [_participant(each) for each in answer.participants]


@asynccontextmanager
async def _client(server: ExternalLiveKit) -> AsyncGenerator[api.LiveKitAPI]:
    client = api.LiveKitAPI(server.url, server.api_key, server.api_secret)
    try:
        yield client
    finally:
        await client.aclose()


def _open_room(room: api.Room) -> OpenRoom:
    try:
        record = SessionRecord.parse(room.metadata, room=room.name) or SessionRecord()
    except MetadataError:
        record = SessionRecord()  # somebody else's metadata; the room is listed all the same
    return OpenRoom(
        name=room.name,
        sid=record.session or RoomName(room.sid),
        participants=room.num_participants,
        opened_at=datetime.fromtimestamp(room.creation_time, UTC),
        tenant=record.tenant or DEFAULT_TENANT,
        role=record.role,
        fence=record.fence,
        caller=record.caller,
        metadata=room.metadata,
    )


def _participant(each: api.ParticipantInfo) -> Participant:
    return Participant(
        identity=each.identity,
        kind=api.ParticipantInfo.Kind.Name(each.kind).lower(),
        state=api.ParticipantInfo.State.Name(each.state).lower(),
        attributes=dict(each.attributes),
    )
