"""LiveKit, as far as a backend needs it: rooms with metadata, join tokens, participants, webhooks.

Room metadata is replaced as a whole by LiveKit; what others keep there survives because writes read first, and writes
through this service follow one another (api/rooms.py holds the room's row meanwhile).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

import aiohttp
from livekit import api
from livekit.protocol.room import RoomConfiguration

from backend.errors import InvalidRequest, NotFound, TooLarge, Unauthenticated, Unavailable
from backend.settings import BackendSettings

MAX_METADATA: Final = 64 * 1024
"""Bytes; older servers allow no more."""
DEFAULT_TENANT: Final = "default"
_ANSWER_WITHIN: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRoom:
    """A room as LiveKit tells it."""

    name: str
    sid: str
    metadata: str
    participants: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Who a join token is for, and what they may do."""

    identity: str
    name: str
    metadata: str
    attributes: Mapping[str, str]
    can_publish: bool
    hidden: bool
    lifetime: timedelta
    agents: Sequence[str]
    """Names of agents that LiveKit dispatches when this token is the first to join."""


class MediaServer:
    """Calls to LiveKit's server API, each answered within five seconds or refused as `Unavailable`."""

    def __init__(self, settings: BackendSettings) -> None:
        self._url = settings.livekit_url
        self._key = settings.livekit_api_key
        self._secret = settings.livekit_api_secret.get_secret_value() if settings.livekit_api_secret else None
        self._client: api.LiveKitAPI | None = None

    @property
    def url(self) -> str:
        """Where participants connect."""
        if not (self._url and self._key and self._secret):
            raise Unavailable(
                "This backend knows no LiveKit server: set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET."
            )
        return self._url

    async def close(self) -> None:
        if self._client is not None:
            await cast("Any", self._client).aclose()
            self._client = None

    async def create_room(self, name: str, *, metadata: str, empty_timeout: int, agents: Sequence[str]) -> LiveRoom:
        """Creates the room, or finds it; its metadata is set before anybody can join."""
        request = api.CreateRoomRequest(
            name=name,
            metadata=metadata,
            empty_timeout=empty_timeout,
            agents=[api.RoomAgentDispatch(agent_name=agent) for agent in agents],
        )
        async with self._asking("room", name) as client:
            return _live(await client.room.create_room(request))

    async def find_room(self, name: str) -> LiveRoom | None:
        async with self._asking("room", name) as client:
            found = await client.room.list_rooms(api.ListRoomsRequest(names=[name]))
        return _live(found.rooms[0]) if found.rooms else None

    async def set_metadata(self, name: str, metadata: str) -> LiveRoom:
        """Replaces the metadata. Raises `TooLarge` beyond 64 KiB, `NotFound` if the room is not open."""
        if (size := len(metadata.encode())) > MAX_METADATA:
            raise TooLarge(f"The metadata of room {name!r} would have {size} bytes, and LiveKit keeps {MAX_METADATA}.")
        async with self._asking("room", name) as client:
            return _live(
                await client.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=name, metadata=metadata))
            )

    async def delete_room(self, name: str) -> None:
        """Ends the call for everybody in the room. Does nothing if the room is not open."""
        try:
            async with self._asking("room", name) as client:
                await client.room.delete_room(api.DeleteRoomRequest(room=name))
        except NotFound:
            pass

    async def update_participant(
        self,
        room: str,
        identity: str,
        *,
        name: str | None,
        metadata: str | None,
        attributes: Mapping[str, str],
    ) -> None:
        """Changes what is given, and leaves the rest; an attribute with an empty value is removed."""
        request = api.UpdateParticipantRequest(room=room, identity=identity, attributes=dict(attributes))
        if name is not None:
            request.name = name
        if metadata is not None:
            request.metadata = metadata
        async with self._asking("participant", identity) as client:
            await client.room.update_participant(request)

    def token(self, room: str, guest: Guest) -> str:
        """A join token, made here: LiveKit is not asked."""
        self.url  # noqa: B018  # says what is not configured
        grants = api.VideoGrants(
            room_join=True,
            room=room,
            can_publish=guest.can_publish,
            can_subscribe=True,
            can_publish_data=guest.can_publish,
            # What a participant may write, others can't trust: metadata and attributes are the server's.
            can_update_own_metadata=False,
            hidden=guest.hidden,
        )
        token = api.AccessToken(self._key, self._secret).with_identity(guest.identity).with_grants(grants)
        token = token.with_ttl(guest.lifetime).with_metadata(guest.metadata).with_attributes(dict(guest.attributes))
        if guest.name:
            token = token.with_name(guest.name)
        if guest.agents:
            dispatches = [api.RoomAgentDispatch(agent_name=agent) for agent in guest.agents]
            token = token.with_room_config(RoomConfiguration(agents=dispatches))
        return token.to_jwt()

    def receive(self, body: str, authorization: str) -> api.WebhookEvent:
        """A webhook of LiveKit's. Raises `Unauthenticated` unless it is signed with our key, over this very body."""
        self.url  # noqa: B018
        receiver = api.WebhookReceiver(api.TokenVerifier(self._key, self._secret))
        try:
            return receiver.receive(body, authorization)
        except Exception as error:
            raise Unauthenticated(
                "The webhook is not signed by LiveKit with this backend's key: set the same key on both sides."
            ) from error

    @asynccontextmanager
    async def _asking(self, what: str, name: str) -> AsyncGenerator[api.LiveKitAPI]:
        url = self.url
        if self._client is None:
            timeout = aiohttp.ClientTimeout(total=_ANSWER_WITHIN)
            self._client = api.LiveKitAPI(url, self._key, self._secret, timeout=timeout)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                yield self._client
        except api.TwirpError as error:
            if error.code == "not_found":
                raise NotFound(what, name) from error
            if error.code == "invalid_argument":
                raise InvalidRequest(f"LiveKit refuses the request for {what} {name!r}: {error.message}.") from error
            raise Unavailable(f"LiveKit refused the request for {what} {name!r}: {error.message}.") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable("LiveKit did not answer. Repeat the request.") from error


def open_metadata(text: str, room: str) -> dict[str, Any]:
    """Room metadata as an object; empty text is an empty one. Raises `InvalidRequest` for what is none."""
    if not text.strip():
        return {}
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(_no_object(room, "no JSON")) from error
    if not isinstance(value, dict):
        raise InvalidRequest(_no_object(room, f"a JSON {type(value).__name__}"))
    return cast("dict[str, Any]", value)


def tenant_in(metadata: str, room: str) -> str:
    """The tenant that the room's session record names, else `default`: metadata is written by servers alone."""
    record = open_metadata(metadata, room).get("baton")
    tenant = cast("dict[str, Any]", record).get("tenant") if isinstance(record, dict) else None
    return tenant if isinstance(tenant, str) and tenant else DEFAULT_TENANT


def _no_object(room: str, found: str) -> str:
    return f"The metadata of room {room!r} is {found}, not a JSON object: whoever wrote it must correct it first."


def _live(room: Any) -> LiveRoom:
    return LiveRoom(name=room.name, sid=room.sid, metadata=room.metadata, participants=room.num_participants)
