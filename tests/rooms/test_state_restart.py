"""A livekit-server that is killed and comes back has forgotten the room's metadata: the holder writes them again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from livekit import api

from coordination.livekit.record import SessionRecord
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveKitServer, LiveRoom, create_room
from tests.rooms.team import STANDBY, gathering


@pytest.fixture
async def fragile_room(own_livekit_server: LiveKitServer) -> AsyncIterator[LiveRoom]:
    client = own_livekit_server.client()
    room = await create_room(own_livekit_server, client, metadata='{"plan": "gold"}')
    yield room
    await room.close()
    await client.aclose()


async def test_a_restarted_server_is_told_again_what_the_call_is(
    own_livekit_server: LiveKitServer, fragile_room: LiveRoom, redis_url: str
) -> None:
    async with gathering(fragile_room, redis_url) as team:
        receptionist = await team.join("receptionist", roles=["billing"])
        await team.join("billing", metadata=STANDBY)
        await team.holder("receptionist")
        await eventually(lambda: '"fence"' in receptionist.job.rtc.metadata, "the record stands")
        before = json.loads(await fragile_room.metadata())

        own_livekit_server.kill()
        await asyncio.sleep(0.5)
        own_livekit_server.start_now()

        async def known() -> dict[str, object]:
            found = await fragile_room.api.room.list_rooms(api.ListRoomsRequest(names=[fragile_room.name]))
            return json.loads(found.rooms[0].metadata or "{}") if found.rooms else {}

        async with asyncio.timeout(30):
            while await known() != before:
                await asyncio.sleep(0.2)
        found = await fragile_room.api.room.list_rooms(api.ListRoomsRequest(names=[fragile_room.name]))
        record = SessionRecord.parse(found.rooms[0].metadata, room=fragile_room.name)
        assert before["plan"] == "gold"
        assert record is not None
        assert (record.role, record.caller, record.session) == ("receptionist", "caller", fragile_room.sid)

        # The room has another sid now. An agent that comes only now finds the call all the same, and takes it over.
        assert found.rooms[0].sid != fragile_room.sid
        technical = await team.join("technical", metadata=STANDBY)
        assert technical.seat.room.name == fragile_room.sid
        assert {member.role for member in await technical.seat.room.roster.members()} == set(team.players)
        assert not technical.holds


async def test_a_record_that_somebody_overwrites_is_written_again_beside_what_they_wrote(
    livekit_api: api.LiveKitAPI, livekit_server: LiveKitServer, redis_url: str
) -> None:
    room = await create_room(livekit_server, livekit_api)
    async with gathering(room, redis_url) as team:
        receptionist = await team.join("receptionist")
        await eventually(lambda: '"fence"' in receptionist.job.rtc.metadata, "the record stands")

        for theirs in ({"theirs": 1}, {}):
            text = json.dumps(theirs) if theirs else ""
            await livekit_api.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=room.name, metadata=text))

            async def both(theirs: dict[str, int] = theirs) -> bool:
                found = json.loads(await room.metadata() or "{}")
                return found.pop("baton", None) is not None and found == theirs

            async with asyncio.timeout(10):
                while not await both():
                    await asyncio.sleep(0.05)
    await room.close()
