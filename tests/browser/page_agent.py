"""The agent of the browser test: says by attributes what it hears, and does what an agent with the floor does."""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from math import pi, sin

from livekit import rtc
from livekit.agents import AgentServer, JobContext

RATE = 24000
TONE = array("h", (int(8000 * sin(2 * pi * 250 * n / RATE)) for n in range(RATE // 50))).tobytes()
LOUD = 2000
server = AgentServer()


@server.rtc_session(agent_name="receptionist")
async def entry(ctx: JobContext) -> None:
    await ctx.connect()
    caller = await ctx.wait_for_participant()
    me = ctx.room.local_participant
    tasks: set[asyncio.Task[None]] = set()

    def answer(reader: rtc.TextStreamReader, _identity: str) -> None:
        tasks.add(asyncio.create_task(_answer(reader, me)))

    def listen(track: rtc.Track, _publication: object, _participant: object) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            tasks.add(asyncio.create_task(_listen(track, me)))

    ctx.room.register_text_stream_handler("lk.chat", answer)
    ctx.room.on("track_subscribed", listen)
    for publication in caller.track_publications.values():
        if publication.track is not None:
            listen(publication.track, publication, caller)
    await _take_the_floor(ctx, caller.identity)
    await _speak(ctx.room)


async def _take_the_floor(ctx: JobContext, caller: str) -> None:
    me = ctx.room.local_participant
    await me.set_attributes({"lk.agent.state": "speaking"})
    said = {"v": 1, "fence": time.time_ns() // 1000, "agent": ctx.job.id, "role": "receptionist"}
    await me.publish_data(json.dumps(said), reliable=True, topic="baton.floor")
    await _transcribe(me, "welcome", "Welcome. How can I help you?", me.identity)
    for words in ("I have", "I have a question"):
        await _transcribe(me, "question", words, caller)


async def _transcribe(me: rtc.LocalParticipant, segment: str, words: str, speaker: str) -> None:
    writer = await me.stream_text(
        topic="lk.transcription",
        sender_identity=speaker,
        attributes={"lk.segment_id": segment, "lk.transcription_final": "true"},
    )
    await writer.write(words)
    await writer.aclose()


async def _answer(reader: rtc.TextStreamReader, me: rtc.LocalParticipant) -> None:
    await _transcribe(me, "answer", f"You typed: {await reader.read_all()}", me.identity)


async def _listen(track: rtc.Track, me: rtc.LocalParticipant) -> None:
    loud = 0
    async for event in rtc.AudioStream(track, sample_rate=16000, num_channels=1):
        loud += max(map(abs, event.frame.data)) > LOUD
        if loud == 20:
            await me.set_attributes({"heard": "yes"})


async def _speak(room: rtc.Room) -> None:
    source = rtc.AudioSource(RATE, 1)
    await room.local_participant.publish_track(rtc.LocalAudioTrack.create_audio_track("voice", source))
    while room.isconnected():
        await source.capture_frame(rtc.AudioFrame(TONE, RATE, 1, len(TONE) // 2))
