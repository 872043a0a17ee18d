"""Redis goes away in the middle of what an agent says: what the caller hears by either policy, and after it is back."""

from __future__ import annotations

import asyncio
import time

import pytest

from coordination.dev.valkey import EmbeddedValkey
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import gathering

STORY = " ".join(["word"] * 100)
"""Twelve seconds: it outlasts the outage."""
FADES = 2.5
"""Seconds by which a floor that cannot be renewed has run out (2) and the voice has died away (0.3)."""
AWAY = 5.0


@pytest.mark.parametrize("policy", ["keep", "silence"])
async def test_an_agent_goes_on_or_falls_silent_while_redis_is_away(
    make_room: RoomFactory, valkey: EmbeddedValkey, policy: str
) -> None:
    async with gathering(await make_room(), valkey.url) as team:
        receptionist = await team.join("receptionist", greeting="", settings={"keep_floor": policy == "keep"})
        await team.holder("receptionist")
        receptionist.session.say(STORY)
        ears = team.caller.ears
        await eventually(lambda: ears.hears(receptionist.identity), "the story begins")

        away = time.monotonic()
        valkey.pause()
        await asyncio.sleep(AWAY)
        valkey.resume()

        heard = ears.seconds(receptionist.identity, since=away + FADES, until=away + AWAY)
        if policy == "keep":
            assert heard > 0.9 * (AWAY - FADES)
        else:
            assert heard == 0
        await team.quiet(within=20)
        await team.holder("receptionist")
        await team.caller.say("one two")
        await eventually(lambda: "receptionist heard one two" in receptionist.said, "it answers again", within=10)
        asked = time.monotonic()
        await eventually(lambda: ears.first_audible(receptionist.identity, since=asked), "and is heard", within=10)
        await team.quiet(within=20)

        assert await team.words_of_caller() == ["one two"]
        assert receptionist.said.count("receptionist heard one two") == 1
