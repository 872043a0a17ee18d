"""LiveKit agents that know nothing of Baton keep its invariants once they use its session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from livekit import rtc
from livekit.agents import Agent, BackgroundAudioPlayer, JobContext, RunContext, function_tool, llm
from livekit.agents.voice.avatar import QueueAudioOutput

from coordination.errors import InvalidSettings
from coordination.livekit import CoordinatedSession
from coordination.livekit.tracks import UnsupportedOutput
from coordination.settings import CoordinatorSettings
from tests.rooms.callers import calling
from tests.rooms.conftest import RoomFactory
from tests.rooms.ears import eventually
from tests.rooms.jobs import Job
from tests.rooms.providers import Reply, Rule, RuleLLM, ToneTTS, last_user_text
from tests.rooms.speaking import tone
from tests.rooms.team import STANDBY, Options, Player, TeamAgent, gathering

ROLES = ("receptionist", "billing")


async def hum() -> AsyncIterator[rtc.AudioFrame]:
    while True:
        yield tone(0.1, rate=48000, hertz=300)


async def play_background(player: Player) -> BackgroundAudioPlayer:
    background = BackgroundAudioPlayer(ambient_sound=hum())
    await background.start(room=player.job.rtc, agent_session=player.session)
    return background


async def test_a_standby_says_and_answers_nothing_and_its_background_audio_is_mute(
    make_room: RoomFactory, redis_url: str
) -> None:
    async with gathering(await make_room(), redis_url) as team:
        reception = await team.join("receptionist", roles=ROLES)
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        await team.quiet()

        said = billing.session.say("I am billing")
        generated = billing.session.generate_reply(instructions="Say something.")
        await asyncio.wait_for(asyncio.gather(said, generated), 1)
        await team.caller.text("one two")
        await eventually(lambda: "receptionist heard one two" in reception.said, "text is answered")
        await team.quiet()
        sounds = [await play_background(billing)]
        await asyncio.sleep(0.5)
        before = team.caller.ears.seconds(billing.identity)
        await team.caller.text("billing")
        await team.holder("billing")
        await eventually(
            lambda: team.caller.ears.seconds(billing.identity) > 0.5, "the background comes with the floor"
        )
        await team.caller.text("three four")
        await eventually(lambda: "billing heard three four" in billing.said, "the new holder answers text")
        for sound in sounds:
            await sound.aclose()

        assert before == 0
        assert "I am billing" not in billing.said
        assert not [text for text in reception.said if "three four" in text]
        assert await team.words_of_caller() == ["one two", "billing", "three four"]


class SubAgent(TeamAgent):
    """What a tool hands over to inside the worker."""

    def __init__(self, player: Player) -> None:
        super().__init__(player)
        self._instructions = "You look up invoices."

    async def on_enter(self) -> None:
        self.session.say("invoice desk")


class OrdinaryAgent(TeamAgent):
    """Greets in `on_enter`, speaks in a tool, hands over in-process: nothing here knows of Baton."""

    @function_tool
    async def remember(self, context: RunContext) -> str:
        """Says something while it works."""
        context.session.say("let me see")
        await context.wait_for_playout()
        return "remembered"

    @function_tool
    async def invoices(self, context: RunContext) -> Agent:
        """Hands over inside the worker."""
        return SubAgent(self.player)


def ordinary_rule(player: Player) -> Rule:
    def rule(chat: llm.ChatContext) -> Reply:
        text = last_user_text(chat)
        if "invoice" in text:
            return Reply(tool="invoices")
        if "wait" in text:
            return Reply(tool="remember")
        return player.rule(chat)

    return rule


async def test_speech_in_a_tool_and_an_in_process_handoff_work_and_survive_losing_the_floor(
    make_room: RoomFactory, redis_url: str
) -> None:
    async with gathering(await make_room(), redis_url) as team:
        reception = Player(team.room, "receptionist", Options(), ROLES, 700.0)
        reception.agent = OrdinaryAgent(reception)
        reception.llm = RuleLLM(ordinary_rule(reception))
        team.players["receptionist"] = reception
        await reception.start(redis_url)
        billing = await team.join("billing", roles=ROLES, metadata=STANDBY)
        await team.quiet()

        await team.caller.text("wait")
        await eventually(lambda: "let me see" in reception.said, "speech in a tool")
        await team.quiet()
        await team.caller.text("invoice")
        await eventually(lambda: "invoice desk" in reception.said, "the in-process handoff")
        await team.quiet()
        inner = reception.session.current_agent
        await team.caller.text("billing")
        await team.holder("billing")
        await eventually(lambda: billing.said, "billing opens")
        await team.quiet()
        await team.caller.text("receptionist")
        await team.holder("receptionist")
        await team.quiet()

        assert isinstance(inner, SubAgent)
        assert reception.session.current_agent is inner, "a handoff back finds the agent that was there"
        assert reception.said.count("invoice desk") == 1, "it does not introduce itself again"
        assert billing.said == ["billing goes on"]
        assert team.overlap() == 0


async def test_off_is_a_plain_session_that_needs_no_redis(make_room: RoomFactory) -> None:
    room = await make_room()
    async with calling(room) as caller:
        job, voice = Job(room, "solo"), ToneTTS()

        async def entrypoint(ctx: JobContext) -> None:
            session = CoordinatedSession[None](ctx, coordination="off", tts=voice, vad=None, turn_detection="manual")
            await session.start(agent=Agent(instructions="-"), room=ctx.room)
            await session.say("all alone")

        job.start(entrypoint)
        await job.started()
        heard = caller.ears.seconds(job.identity)
        await job.close()

    assert voice.texts == ["all alone"]
    assert heard > 0


async def test_on_without_a_url_says_what_to_set(make_room: RoomFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATON_REDIS_URL", raising=False)
    job = Job(await make_room(), "solo")

    with pytest.raises(InvalidSettings, match="BATON_REDIS_URL"):
        CoordinatedSession[None](job.ctx, coordination="on", vad=None)

    await job.close()


async def test_an_avatar_is_refused_with_a_sentence(make_room: RoomFactory, redis_url: str) -> None:
    room = await make_room()
    job = Job(room, "solo")

    async def entrypoint(ctx: JobContext) -> None:
        session = CoordinatedSession[None](ctx, settings=CoordinatorSettings(redis_url=redis_url), vad=None)
        session.output.audio = QueueAudioOutput()
        await session.start(agent=Agent(instructions="-"), room=ctx.room)

    job.start(entrypoint)
    with pytest.raises(UnsupportedOutput, match="Start the session without an avatar"):
        await job.started()
    await job.close()
