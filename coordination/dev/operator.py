"""A person's access to one room: the room as Redis knows it, with LiveKit behind it where there is one.

With LiveKit a revoked holder that does not fall silent is silenced there, as when any agent acts; and a room is found
by its name, though Redis knows it by its SID.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from coordination.coordinator import Coordinator, Room
from coordination.dev.extras import require_livekit
from coordination.dev.livekit_server import ExternalLiveKit
from coordination.ids import DEFAULT_TENANT, RoomName, Tenant, check_name
from coordination.ports import Silencer

_SID = re.compile(r"RM_[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Which room: by what Redis knows it, and its name in LiveKit if it is open there."""

    key: RoomName
    tenant: Tenant
    name: str | None


async def locate(wanted: str, *, tenant: str | None, livekit: ExternalLiveKit | None) -> Address:
    """The room of that name or SID: an open LiveKit room, else a room of the library's own by exactly that name.

    Raises `LiveKitUnavailable` when LiveKit does not answer, `InvalidName` for what cannot be a name.
    """
    given = RoomName(check_name(wanted, "room"))
    plain = Address(key=given, tenant=Tenant(tenant or DEFAULT_TENANT), name=None)
    if livekit is None:
        return plain
    require_livekit()
    from coordination.dev.directory import list_rooms

    by_sid = _SID.fullmatch(given) is not None
    for room in await list_rooms(livekit, name=None if by_sid else wanted):
        if given in (room.name, room.sid):
            return Address(key=room.sid, tenant=Tenant(tenant) if tenant else room.tenant, name=room.name)
    return plain


@asynccontextmanager
async def open_room(address: Address, *, redis_url: str, livekit: ExternalLiveKit | None) -> AsyncGenerator[Room]:
    """The room, for the time of the block. Raises `StoreError` when Redis cannot be used."""
    async with AsyncExitStack() as parts:
        silencer: Silencer | None = None
        if livekit is not None and address.name is not None:
            silencer = await parts.enter_async_context(_silencer(livekit, address.name))
        coordinator = await parts.enter_async_context(Coordinator.open(redis_url))
        yield coordinator.room(address.key, tenant=address.tenant, silencer=silencer)


@asynccontextmanager
async def _silencer(livekit: ExternalLiveKit, room: str) -> AsyncGenerator[Silencer]:
    from livekit import api

    from coordination.livekit.silence import RoomSilencer

    client = api.LiveKitAPI(livekit.url, livekit.api_key, livekit.api_secret)
    try:
        silencer = RoomSilencer(client, room)
        yield silencer
        await silencer.aclose()
    finally:
        await client.aclose()
