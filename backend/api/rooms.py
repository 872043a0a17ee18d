"""Rooms: created with their metadata before anybody joins, tokens to join them, and changes during the call."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.auth import Tenant
from backend.database import insert_missing
from backend.erasure import admit_conversation, admit_user
from backend.errors import Conflict, NotFound, StaleFence, responses
from backend.idempotency import ExactlyOnce, MaybeOnce, Written
from backend.media import Guest, MediaServer, open_metadata, tenant_in
from backend.models import Room
from backend.models.base import now
from backend.paging import Cursor, Limit, Page, read_page
from backend.state import Parts
from backend.values import NO_NUL, Answer, Body, Fence, Flag, Id, Line, Moment, Name, Object, merge_patch

router = APIRouter(prefix="/v1/rooms", tags=["rooms"])
RoomName = Annotated[Id, Path(description="Name of the room.")]
Attributes = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=256, pattern=NO_NUL)],
        Annotated[str, Field(max_length=4096, pattern=NO_NUL)],
    ],
    Field(max_length=100),
]


class RoomBody(Body):
    """A room to create."""

    name: Id | None = None
    """By default a random one."""
    conversation_id: Id | None = None
    """By default a random one, so that the call's conversation has an id from its start."""
    user_id: Id | None = None
    metadata: Object = {}
    """Of the application's own; the key `baton` is the session record's, and is written here."""
    empty_timeout: Annotated[int, Field(strict=True, ge=1, le=86400)] = 300
    """Seconds that the room stays open with nobody in it."""
    agents: Annotated[list[Name], Field(max_length=20)] = []
    """Names of agents to dispatch to it at once."""


class RoomAnswer(Answer):
    """A room."""

    name: str
    sid: str
    conversation_id: str | None
    user_id: str | None
    metadata: Object


class RoomListed(Answer):
    """A room that this backend knows."""

    name: str
    conversation_id: str | None
    user_id: str | None
    fence: int
    created_at: Moment
    ended_at: Moment | None


class TokenBody(Body):
    """Who is to join, and as what."""

    identity: Name
    name: Line = ""
    metadata: Object = {}
    attributes: Attributes = {}
    can_publish: Flag = True
    hidden: Flag = False
    lifetime_seconds: Annotated[int, Field(strict=True, ge=10, le=86400)] = 600
    """In which the token can be used to join; a call may last longer."""
    agents: Annotated[list[Name], Field(max_length=20)] = []
    """Names of agents that are dispatched if this token opens the room."""


class JoinToken(Answer):
    """What a client needs to join."""

    url: str
    token: str


class MetadataBody(Body):
    """A change of the room's metadata."""

    metadata: Object
    """A JSON merge patch (RFC 7396): keys that it does not name stay, null removes one."""
    fence: Fence | None = None
    """Of the holder of the floor, when several agents are in the room: one that is older than the last that was given
    here, or than that of the session record, is refused."""


class ParticipantBody(Body):
    """What is given is changed."""

    name: Line | None = None
    metadata: Object | None = None
    """Replaces the participant's metadata."""
    attributes: Attributes = {}
    """These attributes are set; an empty value removes one, others stay."""


@router.get("", operation_id="list_rooms", responses=responses())
async def list_rooms(parts: Parts, tenant: Tenant, cursor: Cursor = None, limit: Limit = 50) -> Page[RoomListed]:
    """The rooms that this backend created or learnt of, by name."""
    async with parts.database.reading() as session:
        return await read_page(
            session, RoomListed, select(Room).where(Room.tenant == tenant), [Room.name], cursor=cursor, limit=limit
        )


@router.post("", operation_id="create_room", status_code=201, response_model=RoomAnswer, responses=responses(409, 410))
async def create_room(once: ExactlyOnce, parts: Parts, tenant: Tenant, body: RoomBody) -> Response:
    """Creates the room with its metadata set before anybody can join: tenant, conversation and user in the session
    record, beside what the application gives."""
    name = body.name or f"call-{uuid.uuid4().hex}"
    conversation = body.conversation_id or f"c-{uuid.uuid4().hex}"

    async def write(session: AsyncSession) -> Written:
        await admit_user(session, tenant, body.user_id)
        await admit_conversation(session, tenant, conversation)
        row = await _claim(session, tenant, name)
        row.conversation_id, row.user_id, row.ended_at, row.fence = conversation, body.user_id, None, 0
        record = {"v": 1, "tenant": tenant, "conversation": conversation, "user": body.user_id}
        whole = body.metadata | {"baton": {key: value for key, value in record.items() if value is not None}}
        room = await parts.media.create_room(
            name, metadata=_text(whole), empty_timeout=body.empty_timeout, agents=body.agents
        )
        answer = RoomAnswer(name=name, sid=room.sid, conversation_id=conversation, user_id=body.user_id, metadata=whole)
        return Written(answer=answer, user=body.user_id, conversation=conversation)

    return await once.perform(write)


@router.get("/{room}", operation_id="get_room", responses=responses(404))
async def get_room(parts: Parts, tenant: Tenant, room: RoomName) -> RoomAnswer:
    """The room as LiveKit has it now."""
    async with parts.database.writing() as session:
        row = await _owned(session, parts.media, tenant, room)
        live = await parts.media.find_room(room)
        if live is None:
            raise NotFound("open room", room)
        return _answer(row, live.sid, open_metadata(live.metadata, room))


@router.post("/{room}/tokens", operation_id="create_join_token", status_code=201, responses=responses(404))
async def create_join_token(parts: Parts, tenant: Tenant, room: RoomName, body: TokenBody) -> JoinToken:
    """A token to join the room with."""
    async with parts.database.writing() as session:
        await _owned(session, parts.media, tenant, room)
    guest = Guest(
        identity=body.identity,
        name=body.name,
        metadata=_text(body.metadata) if body.metadata else "",
        attributes=body.attributes,
        can_publish=body.can_publish,
        hidden=body.hidden,
        lifetime=timedelta(seconds=body.lifetime_seconds),
        agents=body.agents,
    )
    return JoinToken(url=parts.media.url, token=parts.media.token(room, guest))


@router.patch(
    "/{room}/metadata", operation_id="update_room_metadata", response_model=RoomAnswer, responses=responses(404, 409)
)
async def update_room_metadata(
    once: MaybeOnce, parts: Parts, tenant: Tenant, room: RoomName, body: MetadataBody
) -> Response:
    """Changes the room's metadata; what the patch does not name stays, the session record included."""

    async def write(session: AsyncSession) -> Written:
        row = await _owned(session, parts.media, tenant, room)
        live = await parts.media.find_room(room)
        if live is None:
            raise NotFound("open room", room)
        before = open_metadata(live.metadata, room)
        if body.fence is not None:
            newest = max(row.fence, _fence(before))
            if body.fence < newest:
                raise StaleFence(f"the metadata of room {room!r}", body.fence, newest)
            row.fence = body.fence
        _refuse_other_tenant(before, body.metadata)
        merged = merge_patch(before, body.metadata)
        await parts.media.set_metadata(room, _text(merged))
        return Written(answer=_answer(row, live.sid, merged), user=row.user_id, conversation=row.conversation_id)

    return await once.perform(write, status=200)


@router.patch("/{room}/participant", operation_id="update_participant", status_code=204, responses=responses(404))
async def update_participant(
    parts: Parts,
    tenant: Tenant,
    room: RoomName,
    identity: Annotated[Name, Query(description="Of the participant.")],
    body: ParticipantBody,
) -> None:
    """Changes name, metadata or attributes of a participant during the call."""
    async with parts.database.writing() as session:
        await _owned(session, parts.media, tenant, room)
    metadata = None if body.metadata is None else _text(body.metadata)
    await parts.media.update_participant(room, identity, name=body.name, metadata=metadata, attributes=body.attributes)


@router.delete("/{room}", operation_id="end_room", status_code=204, responses=responses(404))
async def end_room(parts: Parts, tenant: Tenant, room: RoomName) -> None:
    """Ends the call for everybody in the room."""
    async with parts.database.writing() as session:
        row = await _owned(session, parts.media, tenant, room)
        await parts.media.delete_room(room)
        row.ended_at = row.ended_at or now()


async def _claim(session: AsyncSession, tenant: str, name: str) -> Room:
    """The room's row, locked. Raises `Conflict` if the name is another tenant's."""
    await insert_missing(session, Room, name=name, tenant=tenant, fence=0, created_at=now())
    row = await session.get_one(Room, name, with_for_update=True)
    if row.tenant != tenant:
        raise Conflict(f"The room name {name!r} is taken: nothing was written. Leave it out to get a free one.")
    return row


async def _owned(session: AsyncSession, media: MediaServer, tenant: str, name: str) -> Room:
    """The room's row, locked, if it is this tenant's. One that was not created here belongs to whom its metadata says.

    Raises `NotFound` for a room of another tenant just as for none.
    """
    row = await session.get(Room, name, with_for_update=True)
    if row is None:
        live = await media.find_room(name)
        if live is None or tenant_in(live.metadata, name) != tenant:
            raise NotFound("room", name)
        row = await _claim(session, tenant, name)
    if row.tenant != tenant:
        raise NotFound("room", name)
    return row


def _refuse_other_tenant(before: dict[str, Any], patch: dict[str, Any]) -> None:
    """The record's tenant decides whose the call is: it can't be changed from here."""
    merged = merge_patch(before, patch)
    if _tenant(merged) != _tenant(before):
        raise Conflict("The tenant of a room cannot be changed: leave `baton.tenant` out of the patch.")


def _tenant(metadata: dict[str, Any]) -> Any:
    record = metadata.get("baton")
    return record.get("tenant") if isinstance(record, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _fence(metadata: dict[str, Any]) -> int:
    """The one that the holder of the floor has written into the session record; 0 without one."""
    record = metadata.get("baton")
    fence: Any = record.get("fence") if isinstance(record, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return fence if isinstance(fence, int) and not isinstance(fence, bool) else 0


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _answer(row: Room, sid: str, metadata: dict[str, Any]) -> RoomAnswer:
    return RoomAnswer(
        name=row.name, sid=sid, conversation_id=row.conversation_id, user_id=row.user_id, metadata=metadata
    )
