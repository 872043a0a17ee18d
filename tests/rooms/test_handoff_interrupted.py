"""The caller speaks while a handoff is prepared: the tool that asked for it is interrupted, the handoff is not."""

from __future__ import annotations

import asyncio

from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import STANDBY, gathering

ROLES = ("receptionist", "billing")
LONG = " ".join(["moment"] * 40)
"""Five seconds of speech."""


async def test_a_caller_who_interrupts_while_the_next_agent_prepares_is_answered_and_then_handed_over(
    make_room: RoomFactory, redis_url: str
) -> None:
    """Interrupting a session whose tool waits for the session deadlocks: the framework gives up after five seconds."""
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES, announce=LONG, opening="now billing")
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        billing.tts.first_byte = 1.2  # so long does it take to get ready
        await team.quiet()

        await team.caller.say("billing")
        await eventually(lambda: team.caller.ears.hears(reception.identity), "the announcement is heard")
        preparing = reception.seat.departure is not None
        await team.caller.say("one two three")
        await eventually(
            lambda: not team.caller.ears.hears(reception.identity, within=0.2), "the caller is let speak", within=2.0
        )
        await team.holder("billing")
        await eventually(lambda: billing.said, "billing speaks")
        await asyncio.sleep(0.5)
        await team.quiet()

        assert preparing, "the caller spoke too late for this test"
        assert reception.outcome is None
        assert await team.words_of_caller() == ["billing", "one two three"]
        answers = [text for text in reception.said + billing.said if "one two three" in text]
        assert len(answers) == 1, "the words are answered once"
        assert team.overlap() == 0


async def test_an_agent_that_was_promised_the_floor_and_does_not_get_it_is_neither_heard_nor_entered(
    make_room: RoomFactory, redis_url: str
) -> None:
    """Its opening waits at its closed gate. When the handoff is withdrawn it goes off, and is there for the next."""
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES, announce=LONG, opening="now billing")
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        await team.quiet()

        await team.caller.say("billing")
        await eventually(lambda: billing.seat.target.ready, "billing is ready")
        await eventually(lambda: "now billing" in billing.said, "its opening is spoken to the gate")
        promised, entered = billing.session.current_agent is billing.agent, billing.entered
        handoff = await reception.seat.room.handoffs.current()
        assert handoff is not None
        await reception.seat.room.handoffs.abort(handoff.id, reason="the caller wants to stay")
        await eventually(lambda: billing.session.current_agent is not billing.agent, "billing is off again")
        await eventually(lambda: reception.outcome not in (None, "not asked"), "the old agent learns the reason")
        await team.quiet(within=12)
        unheard = team.caller.ears.first_audible(billing.identity) is None

        await team.caller.say("billing")
        await team.holder("billing", within=12)
        await eventually(lambda: team.caller.ears.hears(billing.identity), "the opening is heard")
        await team.quiet()

        assert promised, "a ready agent is on already"
        assert (entered, billing.entered) == (0, 1), "on_enter means that the floor is there"
        assert unheard
        assert [text for role, text in await team.words_of_agents() if role == "billing"] == ["now billing"]
        assert team.overlap() == 0
