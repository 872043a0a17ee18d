"""Text that an agent publishes is tied to the floor like its voice: transcripts of what it says, and text replies."""

from __future__ import annotations

import asyncio

from livekit import rtc

from tests.rooms.conftest import ListenerFactory
from tests.rooms.ears import Listener, eventually
from tests.rooms.rig import RoomFactory
from tests.rooms.speaking import Floor, speaking_agent, speech

AGENT = "agent-A"
WORDS = " ".join(f"word{number}" for number in range(1, 31))


class Reader:
    """Reads what agents write to the room, as a caller's client does."""

    def __init__(self, ears: Listener) -> None:
        self.text = ""
        self._tasks: set[asyncio.Task[None]] = set()
        ears.room.register_text_stream_handler("lk.transcription", self._on_stream)

    def _on_stream(self, reader: rtc.TextStreamReader, identity: str) -> None:
        task = asyncio.create_task(self._read(reader), name=f"read {identity}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, reader: rtc.TextStreamReader) -> None:
        async for chunk in reader:
            self.text += chunk

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_transcript_waits_for_the_floor_together_with_the_voice(
    make_room: RoomFactory, listen: ListenerFactory
) -> None:
    room = await make_room()
    ears = await listen(room)
    reader = Reader(ears)
    async with speaking_agent(await room.join(AGENT, kind="agent")) as agent:
        handle = agent.session.say("one two three", audio=speech(0.8))
        await eventually(lambda: agent.gate.waiting.is_set(), "the utterance waits at the gate")
        await asyncio.sleep(0.4)
        assert reader.text == ""

        agent.gate.open(Floor())
        await asyncio.wait_for(handle.wait_for_playout(), 5)

        await eventually(lambda: reader.text == "one two three", "the transcript has come")
    await reader.close()


async def test_a_transcript_does_not_run_on_without_the_voice(make_room: RoomFactory, listen: ListenerFactory) -> None:
    room = await make_room()
    ears = await listen(room)
    reader = Reader(ears)
    async with speaking_agent(await room.join(AGENT, kind="agent")) as agent:
        agent.gate.open(Floor())
        agent.session.say(WORDS, audio=speech(8.0))
        await eventually(lambda: reader.text != "", "the transcript has begun")

        agent.gate.close()
        await asyncio.sleep(0.3)
        at_the_end_of_the_tail = reader.text
        await asyncio.sleep(1.2)

        assert reader.text == at_the_end_of_the_tail
        assert len(reader.text) < len(WORDS) / 2
        await agent.session.interrupt()
    await reader.close()


async def test_text_that_does_not_follow_the_voice_waits_at_a_gate_of_its_own(
    make_room: RoomFactory, listen: ListenerFactory
) -> None:
    room = await make_room()
    ears = await listen(room)
    reader = Reader(ears)
    async with speaking_agent(await room.join(AGENT, kind="agent"), sync_transcription=False) as agent:
        agent.session.output.set_audio_enabled(False)
        handle = agent.session.say("a text reply")
        await asyncio.sleep(0.4)
        assert reader.text == ""

        agent.gate.open(Floor())
        await asyncio.wait_for(handle.wait_for_playout(), 5)

        await eventually(lambda: reader.text == "a text reply", "the reply has come")
    await reader.close()


async def test_a_text_reply_that_waits_can_be_interrupted(make_room: RoomFactory, listen: ListenerFactory) -> None:
    room = await make_room()
    ears = await listen(room)
    reader = Reader(ears)
    async with speaking_agent(await room.join(AGENT, kind="agent"), sync_transcription=False) as agent:
        agent.session.output.set_audio_enabled(False)
        held = agent.session.say("never read")
        await asyncio.sleep(0.2)

        await asyncio.wait_for(agent.session.interrupt(), 1)
        await asyncio.wait_for(held.wait_for_playout(), 1)
        agent.gate.open(Floor())
        await asyncio.wait_for(agent.session.say("read").wait_for_playout(), 5)

        await eventually(lambda: reader.text == "read", "the next reply has come, and the first has not")
    await reader.close()
