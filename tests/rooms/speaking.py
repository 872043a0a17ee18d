"""An agent for the gate's tests: a plain AgentSession of LiveKit in a real room, with the gate at its head."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from livekit import rtc
from livekit.agents import Agent, AgentSession, TurnHandlingOptions
from livekit.agents.types import NOT_GIVEN
from livekit.agents.voice import io, room_io

from coordination.livekit.gate import AudioGate, TextGate

RATE = 24000


@dataclass(slots=True)
class Floor:
    """A lease as the gate sees it; the tests take it away by hand."""

    held: bool = True


def tone(seconds: float, *, rate: int = RATE, hertz: float = 440.0) -> rtc.AudioFrame:
    count = round(seconds * rate)
    samples = array("h", (int(8000 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(count)))
    return rtc.AudioFrame(samples.tobytes(), rate, 1, count)


async def speech(seconds: float) -> AsyncIterator[rtc.AudioFrame]:
    """What a synthesiser gives that is much faster than speech: all of it at once, in frames of 100 ms."""
    for _ in range(round(seconds * 10)):
        yield tone(0.1)


@dataclass(slots=True)
class SpeakingAgent:
    identity: str
    room: rtc.Room
    session: AgentSession[None]
    gate: AudioGate
    finished: list[io.PlaybackFinishedEvent] = field(default_factory=list[io.PlaybackFinishedEvent])
    """What the session was told about the end of each utterance."""


@asynccontextmanager
async def speaking_agent(room: rtc.Room, *, sync_transcription: bool = True) -> AsyncGenerator[SpeakingAgent]:
    """A session that can `say` prepared audio, its gate closed. It has no models, so nothing leaves the machine.

    A listener must be in the room: LiveKit's output waits for the first who subscribes to its track.
    """
    session = AgentSession[None](turn_handling=TurnHandlingOptions(turn_detection="manual"), vad=None)
    text = room_io.TextOutputOptions(sync_transcription=NOT_GIVEN if sync_transcription else False)
    options = room_io.RoomOptions(text_output=text, text_input=False)
    await session.start(Agent(instructions="-"), room=room, room_options=options, session_host=False)
    assert session.output.audio is not None
    assert session.output.transcription is not None
    gate = AudioGate(next_in_chain=session.output.audio)
    session.output.audio = gate
    session.output.transcription = TextGate(next_in_chain=session.output.transcription, gate=gate.gate)
    agent = SpeakingAgent(room.local_participant.identity, room, session, gate)
    gate.on("playback_finished", agent.finished.append)
    subscribed = session.room_io.subscribed_fut
    assert subscribed is not None
    await asyncio.wait_for(subscribed, 10)
    try:
        yield agent
    finally:
        await session.aclose()
