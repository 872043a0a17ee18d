"""The same caller handed to and fro twenty times: what holds once must hold each time."""

from __future__ import annotations

from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.providers import WORDS
from tests.rooms.team import STANDBY, gathering

ROLES = ("receptionist", "billing")
HANDOFFS = 20
TYPED = 5
"""Each fifth wish is typed, the others are spoken."""


async def test_twenty_handoffs_to_and_fro_have_one_voice_one_answer_and_one_greeting(
    make_room: RoomFactory, redis_url: str
) -> None:
    async with gathering(await make_room(), redis_url) as team:
        players = {
            "receptionist": await team.join("receptionist", roles=ROLES, opening="now billing", announce="a moment"),
            "billing": await team.join(
                "billing", roles=ROLES, opening="now reception", announce="a moment", metadata=STANDBY
            ),
        }
        await team.quiet()

        wishes = [f"{('billing', 'receptionist')[number % 2]} {WORDS[number]}" for number in range(HANDOFFS)]
        for number, wish in enumerate(wishes):
            role = wish.split()[0]
            before = len(players[role].said)
            await (team.caller.text(wish) if number % TYPED == 0 else team.caller.say(wish))
            await team.holder(role)
            await eventually(lambda role=role, before=before: len(players[role].said) > before, f"{role} opens")
            await team.quiet()

        assert team.overlap() == 0
        said = await team.words_of_agents()
        assert [text for _, text in said if "hello" in text] == ["hello from receptionist"]
        openings = [text for _, text in said if text.startswith("now ")]
        assert openings == ["now billing", "now reception"] * (HANDOFFS // 2)
        assert await team.words_of_caller() == wishes
        talk = [m.text_content or "" for m in players["receptionist"].agent.chat_ctx.messages()]
        assert [text for text in talk if text in wishes] == wishes, "the history lacks a turn, or has one twice"
