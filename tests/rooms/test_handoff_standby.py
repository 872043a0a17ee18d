"""Handing a caller over to an agent that stands by in the room."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.team import STANDBY, gathering

ROLES = ("receptionist", "billing")


async def test_the_caller_is_handed_over_and_back_without_a_second_greeting(
    make_room: RoomFactory, redis_url: str
) -> None:
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES, opening="now billing")
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        await team.quiet()

        await team.caller.say("one two")
        await eventually(lambda: "receptionist heard one two" in reception.said, "the first answer")
        await team.quiet()
        await team.caller.say("billing please")
        await team.holder("billing")
        await team.quiet()
        await team.caller.say("three four")
        await eventually(lambda: "billing heard three four" in billing.said, "the second answer")
        await team.quiet()
        await team.caller.say("receptionist again")
        await team.holder("receptionist")
        await eventually(lambda: reception.said[-1] == "receptionist goes on", "the receptionist goes on")
        await team.quiet()

        assert await team.words_of_caller() == ["one two", "billing please", "three four", "receptionist again"]
        assert await team.words_of_agents() == [
            ("receptionist", "hello from receptionist"),
            ("receptionist", "receptionist heard one two"),
            ("billing", "now billing"),
            ("billing", "billing heard three four"),
            ("receptionist", "receptionist goes on"),
        ]
        assert reception.outcome is None
        assert team.overlap() == 0
        assert (reception.stt.streams, billing.stt.streams) == (2, 1), "a standby must not open speech to text"
        talk = [m.text_content for m in reception.agent.chat_ctx.messages() if m.role in ("user", "assistant")]
        assert talk == [
            "hello from receptionist",
            "one two",
            "receptionist heard one two",
            "billing please",
            '[said by billing] "now billing"',
            "three four",
            '[said by billing] "billing heard three four"',
            "receptionist again",
            "receptionist goes on",
        ]

        billing.seat.membership.asked_to_leave.set()
        await eventually(
            lambda: billing.job.ended.is_set(), "an agent that has had the floor by a handoff leaves when asked to"
        )


async def test_what_the_caller_says_around_the_swap_is_logged_and_answered_once(
    make_room: RoomFactory, redis_url: str
) -> None:
    """The caller goes on talking at different moments around the commit: before it, over it, after it."""
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES)
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        await team.quiet()

        expected: list[str] = []
        to, words = ("billing", "receptionist"), ("three four", "five six", "seven eight", "nine ten")
        for number, after in enumerate((0.3, 0.45, 0.6, 0.9)):
            await team.caller.say(to[number % 2])
            await asyncio.sleep(after)
            await team.caller.say(words[number])
            expected += [to[number % 2], words[number]]
            await team.holder(to[number % 2])
            await asyncio.sleep(0.7)
            await team.quiet()

        turns = await team.words_of_caller()
        assert " ".join(turns) == " ".join(expected), "a word was lost or doubled"
        for said in words:
            answers = [text for text in reception.said + billing.said if said in text]
            # Said in one breath with the wish, both are one turn, and the handoff itself answers it.
            assert len(answers) == (1 if said in turns else 0)
        assert team.overlap() == 0


async def test_an_utterance_over_the_commit_is_finished_by_the_old_agent_and_answered_by_the_new(
    make_room: RoomFactory, redis_url: str
) -> None:
    """The caller talks on for longer than the floor waits: it moves in the middle of the utterance."""
    hasty = {"turn_boundary": timedelta(milliseconds=300)}
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES, settings=hasty, opening="now billing")
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        billing.tts.first_byte = 0.6  # so long does it take to get ready
        await team.quiet()

        await team.caller.say("billing")
        await eventually(lambda: reception.seat.departure is not None, "the handoff has begun")
        await team.caller.say("one two three four five six seven eight")
        await team.holder("billing")
        await eventually(
            lambda: any("one two three four five six seven eight" in text for text in billing.said), "the answer"
        )
        await asyncio.sleep(1.0)
        await team.quiet()

        assert await team.words_of_caller() == ["billing", "one two three four five six seven eight"]
        agents = [text for role, text in await team.words_of_agents() if role == "billing"]
        assert agents == ["billing heard one two three four five six seven eight"], "no opening over the caller's words"
        assert team.overlap() == 0


@pytest.mark.parametrize("late", [2.4, 4.0], ids=["around the commit", "long after it"])
async def test_words_that_speech_to_text_gives_when_nobody_expects_them_any_more_are_answered(
    make_room: RoomFactory, redis_url: str, late: float
) -> None:
    """A busy host: the floor moves after the caller's sentence, before the old agent knows what was said."""
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES, stt_delay=late, stt_interim=False)
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        await team.quiet()

        await team.caller.say("three four")
        await team.hand_over("receptionist", "billing")
        assert await team.words_of_caller() == [], "the words came before the floor had moved"
        await eventually(lambda: "billing heard three four" in billing.said, "the answer", within=late + 4)
        await team.quiet()

        assert await team.words_of_caller() == ["three four"]
        assert [text for text in reception.said + billing.said if "three four" in text] == ["billing heard three four"]
        assert team.overlap() == 0
