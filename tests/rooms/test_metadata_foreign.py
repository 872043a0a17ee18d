"""A call whose metadata are somebody else's, and no JSON object, from its dispatch to its end."""

from __future__ import annotations

import pytest
from livekit import api

from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import gathering


@pytest.mark.parametrize(
    ("text", "later"), [("premium customer", "[1, 2]"), ('{"baton": {"v": 1', "null")], ids=["text", "cut off"]
)
async def test_a_call_is_served_and_what_stands_there_is_left_alone(
    make_room: RoomFactory, redis_url: str, text: str, later: str
) -> None:
    live = await make_room(metadata=text)
    async with gathering(live, redis_url) as team:
        reception = await team.join("receptionist", roles=("billing",), metadata=text)
        await eventually(lambda: reception.said == ["hello from receptionist"], "it greets")
        billing = await team.join("billing", metadata=text)
        await team.quiet()
        assert await live.metadata() == text

        await live.api.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=live.name, metadata=later))
        await team.caller.say("billing please")
        await team.holder("billing")
        await team.quiet()
        await team.caller.say("one two")
        await eventually(lambda: "billing heard one two" in billing.said, "the other agent answers")

        assert await live.metadata() == later
        assert team.overlap() == 0.0
