"""A call as a whole: who it is with, when it ends, and who has the floor of it."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta

import pytest
from livekit import rtc

from coordination.livekit.messages import FLOOR_TOPIC, FloorAnnouncement
from coordination.room.members import MemberState
from tests.rooms.callers import calling
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import STANDBY, Team, gathering

ROLES = ("receptionist", "billing")


async def test_the_first_agent_greets_announces_itself_and_names_the_caller_in_the_room(
    make_room: RoomFactory, redis_url: str
) -> None:
    async with gathering(await make_room(metadata='{"mine": 1}'), redis_url) as team:
        announced: list[FloorAnnouncement | None] = []

        def received(packet: rtc.DataPacket) -> None:
            if packet.topic == FLOOR_TOPIC:
                announced.append(FloorAnnouncement.decode(packet.data))

        team.caller.room.on("data_received", received)
        reception = await team.join("receptionist")
        await eventually(lambda: reception.said == ["hello from receptionist"], "the greeting")
        await eventually(lambda: announced, "the grant is announced")
        seat = reception.seat
        await eventually(lambda: seat.membership.member.state is MemberState.HOLDER, "the roster knows the holder")
        await asyncio.sleep(0.2)
        record = json.loads(await team.room.metadata())

        assert announced[0] is not None
        assert announced[0].agent == reception.job.id
        assert record["mine"] == 1
        assert record["baton"]["caller"] == "caller"
        assert record["baton"]["role"] == "receptionist"
        assert record["baton"]["fence"] == announced[0].fence


async def test_a_grant_carries_a_higher_fence_than_the_one_in_the_rooms_metadata(
    make_room: RoomFactory, redis_url: str
) -> None:
    """Redis knows nothing of this call any more, and its clock is behind what was granted."""
    ahead = time.time_ns() // 1000 + 600_000_000
    record = {"baton": {"v": 1, "tenant": "default", "caller": "caller", "role": "billing", "fence": ahead}}
    async with gathering(await make_room(metadata=json.dumps(record)), redis_url) as team:
        reception = await team.join("receptionist")
        await team.holder("receptionist")
        await eventually(lambda: reception.said, "it speaks")

        assert reception.seat.lease is not None
        assert reception.seat.lease.fence > ahead


async def test_agents_link_to_the_caller_and_not_to_who_joins_later(make_room: RoomFactory, redis_url: str) -> None:
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES)
        await team.quiet()
        await team.room.join("supervisor")
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)

        await team.caller.say("one two")
        await eventually(lambda: "receptionist heard one two" in reception.said, "the caller is heard")

        linked = [player.session.room_io.linked_participant for player in (reception, billing)]
        assert [participant and participant.identity for participant in linked] == ["caller", "caller"]


async def test_all_agents_leave_when_the_last_caller_has_been_gone_for_the_grace_time(
    make_room: RoomFactory, redis_url: str
) -> None:
    short = {"caller_grace": timedelta(seconds=1.5)}
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", settings=short)
        billing = await team.join("billing", metadata=STANDBY, settings=short)
        await team.quiet()

        await team.caller.room.disconnect()
        await asyncio.sleep(0.7)
        early = reception.job.ended.is_set() or billing.job.ended.is_set()
        await eventually(lambda: reception.job.ended.is_set() and billing.job.ended.is_set(), "both have left")

        assert not early
        assert "last caller has left" in reception.job.reason


async def test_a_caller_who_comes_back_in_time_is_welcomed_and_not_greeted_as_new(
    make_room: RoomFactory, redis_url: str
) -> None:
    room = await make_room()
    async with gathering(room, redis_url) as team:
        reception = await team.join("receptionist")
        await team.quiet()

        await team.caller.room.disconnect()
        await asyncio.sleep(1.3)
        async with calling(room) as back:
            await eventually(lambda: "receptionist goes on" in reception.said, "a word to the caller")
            await eventually(lambda: back.ears.seconds(reception.identity) > 0, "the caller hears it")
            await asyncio.sleep(0.5)
            await back.say("five six")
            await eventually(lambda: "receptionist heard five six" in reception.said, "the caller is heard again")

        assert reception.said.count("hello from receptionist") == 1
        assert not reception.job.ended.is_set()


async def test_one_agent_that_leaves_does_not_end_the_call(make_room: RoomFactory, redis_url: str) -> None:
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist")
        billing = await team.join("billing", metadata=STANDBY)
        await team.quiet()

        await reception.job.close()
        await team.holder("billing")
        await eventually(lambda: billing.said == ["billing goes on"], "the next agent goes on")

        assert not billing.job.ended.is_set()


async def revoke(team: Team) -> None:
    await team.players["receptionist"].seat.room.floor.revoke(reason="a test")


async def test_a_revoked_agent_falls_silent_at_once_and_comes_back_without_greeting(
    make_room: RoomFactory, redis_url: str
) -> None:
    """Alone in the room, it is also the one to step in when the floor stays free."""
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", greeting=" ".join(["hello"] * 50))
        await eventually(lambda: team.caller.ears.hears(reception.identity), "the long greeting is heard")

        await revoke(team)
        await asyncio.sleep(0.4)
        silent = not team.caller.ears.hears(reception.identity, within=0.1)
        await team.holder("receptionist")
        await asyncio.sleep(0.5)

        assert silent
        assert len(reception.said) == 1
        assert reception.entered == 1


@pytest.mark.parametrize("kind", ["standard", "agent"])
async def test_a_pretended_grant_has_no_lasting_effect(make_room: RoomFactory, redis_url: str, kind: str) -> None:
    """From a caller it is ignored; from a (faulty) agent Redis has the last word."""
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist")
        await team.quiet()
        seat = reception.seat
        assert seat.lease is not None
        liar = await team.room.join("liar", kind=kind)  # type: ignore[arg-type]
        lie = FloorAnnouncement(fence=seat.lease.fence + 1_000_000, agent="somebody")  # type: ignore[arg-type]

        await liar.local_participant.publish_data(lie.encode(), reliable=True, topic=FLOOR_TOPIC)
        await asyncio.sleep(0.3)
        await team.caller.text("one two")
        await eventually(lambda: team.caller.ears.seconds(reception.identity) > 0.6, "the agent speaks on")

        assert reception.holds
