"""A call that begins while Redis is away: one agent serves it alone, and never beside another."""

from __future__ import annotations

import pytest

from coordination.errors import StoreUnavailable
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import gathering

NOWHERE = "redis://127.0.0.1:1"


async def test_an_agent_alone_serves_the_call_without_coordination(make_room: RoomFactory) -> None:
    async with gathering(await make_room(), NOWHERE) as team:
        receptionist = await team.join("receptionist", roles=("billing",))
        await eventually(lambda: team.caller.ears.hears(receptionist.identity, within=5.0), "it greets")
        await team.quiet()
        await team.caller.say("billing please")
        await eventually(lambda: receptionist.handed == 1, "the handoff was tried")

        assert receptionist.session.seat is None
        assert (
            receptionist.outcome == "The caller cannot be handed to 'billing': this session runs without coordination."
        )


async def test_an_agent_does_not_begin_beside_another_that_may_be_speaking(make_room: RoomFactory) -> None:
    async with gathering(await make_room(), NOWHERE) as team:
        await team.join("receptionist")
        with pytest.raises(StoreUnavailable):
            await team.join("billing")

        assert team.players["billing"].job.ended.is_set()


async def test_a_job_ends_where_calls_without_redis_are_not_wanted(make_room: RoomFactory) -> None:
    async with gathering(await make_room(), NOWHERE) as team:
        with pytest.raises(StoreUnavailable):
            await team.join("receptionist", settings={"start_without_redis": False})
