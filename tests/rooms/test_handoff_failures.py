"""Handoffs that come to nothing: the old agent keeps the floor, learns why, and tells the caller."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace

from coordination.errors import RoleTaken
from coordination.livekit import Continuation, handoff_to
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import STANDBY, Player, Team, TeamAgent, gathering

ROLES = ("receptionist", "billing", "technical")
SOON = timedelta(seconds=1)


async def ask_for(team: Team, role: str) -> Player:
    """The caller asks the receptionist for a role; returns when that handoff has ended."""
    reception = team.players["receptionist"]
    before = reception.handed
    await team.caller.text(role)
    await eventually(lambda: reception.handed > before, "the handoff has ended")
    return reception


async def test_a_role_without_a_worker_leaves_the_floor_and_tells_the_model_why(
    make_room: RoomFactory, redis_url: str
) -> None:
    async with gathering(await make_room(), redis_url) as team:
        await team.join("receptionist", roles=ROLES, deadline=SOON)
        await team.quiet()

        reception = await ask_for(team, "technical")
        await eventually(lambda: reception.said[-1] == "receptionist goes on", "it tells the caller")
        await team.caller.text("one two")
        await eventually(lambda: "receptionist heard one two" in reception.said, "the conversation goes on")

        assert reception.holds
        assert "no agent of that role took it within 1 s" in (reception.outcome or "")
        told = [item.output for item in reception.agent.chat_ctx.items if item.type == "function_call_output"]
        assert any("perhaps no worker serves it" in output for output in told), "the model can read the reason"


class NeverReady(TeamAgent):
    async def opening(self, handoff: Continuation) -> str | None:
        await asyncio.Event().wait()
        return None


async def test_an_agent_that_never_gets_ready_does_not_get_the_floor(make_room: RoomFactory, redis_url: str) -> None:
    async with gathering(await make_room(), redis_url) as team:
        await team.join("receptionist", roles=ROLES, deadline=SOON)
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        billing.session.update_agent(NeverReady(billing))
        await team.quiet()

        reception = await ask_for(team, "billing")

        assert reception.holds
        assert not billing.holds
        assert "not ready within 1 s" in (reception.outcome or "")
        assert billing.said == []


async def test_of_two_handoffs_at_once_one_is_refused_and_the_other_arrives(
    make_room: RoomFactory, redis_url: str
) -> None:
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES, opening="here I am")
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        technical = await team.join("technical", roles=ROLES, metadata=STANDBY)
        billing.tts.first_byte = 0.7  # keeps the first handoff busy
        await team.quiet()

        outcomes: list[str | None] = []
        await team.caller.text("billing")
        await eventually(lambda: reception.seat.departure is not None, "the first handoff is under way")
        await team.caller.text("technical")
        await eventually(lambda: reception.handed == 1, "the second is refused at once")
        outcomes.append(reception.outcome)
        await team.holder("billing")
        await eventually(lambda: reception.handed == 2, "the first has arrived")
        outcomes.append(reception.outcome)

        assert "'billing' is under way" in (outcomes[0] or "")
        assert outcomes[1] is None
        assert technical.said == []
        assert [player.role for player in team.players.values() if player.holds] == ["billing"]


async def test_a_second_agent_of_a_role_leaves_quietly(make_room: RoomFactory, redis_url: str) -> None:
    async with gathering(await make_room(), redis_url) as team:
        await team.join("receptionist", roles=ROLES)
        second = Player(team.room, "receptionist", team.players["receptionist"].options, ROLES, 2000.0)
        refused = False
        try:
            await second.start(redis_url)
        except RoleTaken:
            refused = True
        await team.quiet()
        await second.job.close()

        assert refused
        assert "already served" in second.job.reason
        assert second.said == []
        assert team.players["receptionist"].holds


async def test_a_handoff_that_cannot_be_is_told_as_a_sentence_and_never_raised(
    make_room: RoomFactory, redis_url: str
) -> None:
    """Arguments come from a model, which makes them up at times."""
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist")
        billing = await team.join("billing", metadata=STANDBY)
        await team.quiet()
        holder, standby = (SimpleNamespace(session=player.session) for player in (reception, billing))

        answers = {
            "itself": await handoff_to(holder, "receptionist", summary="-"),  # type: ignore[arg-type]
            "nobody": await handoff_to(holder, "", summary="-"),  # type: ignore[arg-type]
            "too long": await handoff_to(holder, "x" * 300, summary="-"),  # type: ignore[arg-type]
            "no json": await handoff_to(holder, "billing", summary="-", facts={"a": {1}}),  # type: ignore[arg-type]
            "no floor": await handoff_to(standby, "receptionist", summary="-"),  # type: ignore[arg-type]
        }

        assert "serves that role itself" in (answers["itself"] or "")
        assert "it is empty" in (answers["nobody"] or "")
        assert "at most 256" in (answers["too long"] or "")
        assert answers["no json"] is not None
        assert "does not have the floor" in (answers["no floor"] or "")
        assert reception.holds
