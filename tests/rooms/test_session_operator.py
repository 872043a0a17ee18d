"""What an operator does to a call: giving the floor to somebody, and taking it away."""

from __future__ import annotations

from tests.dev.test_cli_commands import baton
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.rig import LiveKitServer
from tests.rooms.team import STANDBY, gathering

ROLES = ("receptionist", "billing")


async def test_an_operator_gives_the_floor_to_a_standby_and_nobody_speaks_over_it(
    make_room: RoomFactory, redis_url: str
) -> None:
    async with gathering(await make_room(), redis_url) as team:
        await team.join("receptionist", roles=ROLES)
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        await team.quiet()
        floor = team.players["receptionist"].seat.room.floor
        members = {member.role: member for member in await team.players["receptionist"].seat.room.roster.members()}
        target = members[billing.seat.role]

        await floor.grant(target.agent, target.process, role="billing", reason="test")
        await team.holder("billing")
        await eventually(lambda: billing.said, "billing speaks to the caller")
        await team.caller.say("one two")
        await eventually(lambda: "billing heard one two" in billing.said, "billing answers")
        await team.quiet()

        assert not team.players["receptionist"].holds
        assert team.overlap() == 0
        assert "hello from billing" not in billing.said, "the caller has been greeted already"


async def test_a_floor_that_is_revoked_does_not_leave_the_caller_alone(make_room: RoomFactory, redis_url: str) -> None:
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES)
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        await team.quiet()
        lease = reception.seat.lease
        assert lease is not None

        assert await reception.seat.room.floor.revoke(reason="test")
        await eventually(lambda: lease.lost.is_set(), "the receptionist has lost the floor")
        await eventually(lambda: reception.holds or billing.holds, "somebody has the floor again")
        await team.quiet()

        assert team.overlap() == 0


async def test_the_command_line_gives_the_floor_and_takes_it_away_in_a_live_call(
    make_room: RoomFactory, redis_url: str, livekit_server: LiveKitServer
) -> None:
    room = await make_room()
    async with gathering(room, redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES)
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        await team.quiet()
        where = (room.sid, "--redis-url", redis_url)

        granted = await baton("floor", "grant", *where[:1], "billing", *where[1:], **livekit_server.environment)
        await team.holder("billing")
        await eventually(lambda: billing.said, "billing speaks to the caller")
        await team.quiet()
        lease = billing.seat.lease
        assert lease is not None
        revoked = await baton("floor", "revoke", *where, **livekit_server.environment)
        await eventually(lambda: lease.lost.is_set(), "billing has lost the floor")
        await eventually(lambda: reception.holds or billing.holds, "somebody has the floor again")
        await team.quiet()

        assert (granted.status, revoked.status) == (0, 0), granted.complaint + revoked.complaint
        assert "hello from billing" not in billing.said
        assert team.overlap() == 0
