"""LiveKit's webhooks: what the media server says about rooms and participants goes into the feed of their tenant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import insert_missing
from backend.errors import InvalidRequest, responses
from backend.feed import NewEvent, append_events
from backend.media import tenant_in
from backend.models import Room
from backend.models.base import now
from backend.state import Parts
from backend.values import Answer

router = APIRouter(prefix="/v1/livekit", tags=["livekit"])
_ENDS: Final = "room_finished"
_STARTS: Final = "room_started"


class Received(Answer):
    """What became of the webhook."""

    appended: int
    """0 if it was known already, or concerns no room."""


@router.post(
    "/webhook",
    operation_id="receive_livekit_webhook",
    responses=responses(),
    openapi_extra={"requestBody": {"required": True, "content": {"application/webhook+json": {"schema": {}}}}},
)
async def receive(
    request: Request,
    parts: Parts,
    authorization: Annotated[str, Header(description="LiveKit's signature, a JWT over the body's hash.")] = "",
) -> Received:
    """For LiveKit's `webhook.urls`. The signature takes the place of a token; each event is stored once by its id."""
    try:
        body = (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest("The body is no text.") from error
    event = parts.media.receive(body, authorization)
    name: str = event.room.name
    if not name or not event.id:
        return Received(appended=0)
    at = datetime.fromtimestamp(event.created_at, UTC) if event.created_at else now()
    async with parts.database.writing() as session:
        row = await _room(session, name, event.room.metadata)
        if event.event == _ENDS:
            row.ended_at = at
        elif event.event == _STARTS:
            row.ended_at = None
        new = NewEvent(
            kind=f"livekit.{event.event}",
            id=f"livekit:{event.id}",
            room=name,
            conversation_id=row.conversation_id,
            data=_data(event),
            at=at,
        )
        appended = await append_events(session, row.tenant, [new])
    parts.metrics.events.inc(appended)
    parts.appended.set()
    return Received(appended=appended)


async def _room(session: AsyncSession, name: str, metadata: str) -> Room:
    row = await session.get(Room, name, with_for_update=True)
    if row is None:
        await insert_missing(session, Room, name=name, tenant=_tenant(metadata, name), fence=0, created_at=now())
        row = await session.get_one(Room, name, with_for_update=True)
    return row


def _tenant(metadata: str, name: str) -> str:
    try:
        return tenant_in(metadata, name)
    except InvalidRequest:
        return tenant_in("", name)


def _data(event: Any) -> dict[str, Any]:
    """Ids only; what participants wrote about themselves stays in the room."""
    data: dict[str, Any] = {"sid": event.room.sid}
    if event.HasField("participant"):
        data |= {"identity": event.participant.identity, "kind": int(event.participant.kind)}
    if event.HasField("track"):
        data |= {"track": event.track.sid}
    return data
