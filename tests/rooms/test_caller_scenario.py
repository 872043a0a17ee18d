"""The simulated caller in a real room, among agents that follow a script: what it does, hears and reports."""

from __future__ import annotations

import asyncio
import time
import wave
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from livekit import rtc

from coordination.ids import AgentId, Fence, RoleName
from coordination.livekit.messages import FloorAnnouncement, announce
from coordination.testing.calls import HandoffKind, HandoffTiming
from coordination.testing.happenings import Happening, What
from coordination.testing.listening import Ears, Heard, Listener
from coordination.testing.microphone import Microphone
from coordination.testing.runner import Outcome, ScenarioAborted, run_scenario
from coordination.testing.scenario import Scenario
from coordination.testing.speech import PRESETS, synthesize
from tests.rooms.rig import LiveKitServer

CALM = 0.4
"""Seconds of silence after which a scripted agent takes the caller to have finished."""


@dataclass
class Actor:
    """An agent without a brain: a participant of kind agent with a voice and ears."""

    role: str
    room: rtc.Room
    microphone: Microphone
    heard: Heard
    typed: list[str] = field(default_factory=list[str])

    async def speak(self, text: str) -> None:
        speech = await asyncio.to_thread(synthesize, text, voice=PRESETS[self.role])
        await self.microphone.speak(speech)

    async def say_until_interrupted(self, text: str) -> None:
        """Falls silent as soon as somebody else is heard."""
        speaking = asyncio.create_task(self.speak(text))
        since = time.monotonic()
        await self.until(lambda: speaking.done() or self.heard.began_after(since))
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)

    async def caller_finished(self) -> None:
        since = time.monotonic()
        await self.until(lambda: self.heard.began_after(since - CALM))
        await self.until(lambda: time.monotonic() - (self.heard.last_audible() or since) > CALM)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.sleep(0.01)

    async def take_floor(self, fence: int) -> None:
        await announce(
            self.room, FloorAnnouncement(fence=Fence(fence), agent=AgentId(self.role), role=RoleName(self.role))
        )


Play = Callable[[dict[str, Actor], list[HandoffTiming]], Coroutine[None, None, None]]


class Stage:
    """Brings the actors into the room that the runner has made, and tells it of the play's handoffs."""

    def __init__(self, server: LiveKitServer, roles: Sequence[str], play: Play) -> None:
        self._server, self._roles, self._play = server, roles, play
        self._task: asyncio.Task[None] | None = None
        self.handoffs: list[HandoffTiming] = []

    async def start(self, *, room: str, sid: str) -> None:
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._run(room, ready))
        await asyncio.wait_for(ready.wait(), 10)

    async def committed(self) -> Sequence[HandoffTiming]:
        assert self._task is not None
        self._task.cancel()
        done = await asyncio.gather(self._task, return_exceptions=True)
        assert not isinstance(done[0], Exception), done[0]
        return self.handoffs

    async def _run(self, room: str, ready: asyncio.Event) -> None:
        async with _actors(self._server, room, self._roles) as actors:
            ready.set()
            await self._play(actors, self.handoffs)
            await asyncio.Event().wait()


@asynccontextmanager
async def _actors(server: LiveKitServer, name: str, roles: Sequence[str]) -> AsyncGenerator[dict[str, Actor]]:
    actors: dict[str, Actor] = {}
    listeners: list[Listener] = []
    silent = Ears(on_joined=lambda _: None, on_left=lambda _: None, on_floor=lambda _: None, on_text=lambda *_: None)
    try:
        for role in roles:
            room = rtc.Room()
            actor = Actor(role, room, Microphone(speaker=role), Heard())
            listeners.append(Listener(room, actor.heard, silent))
            token = server.token(name, f"agent-{role}", kind="agent", **{"lk.agent.name": role})
            room.register_text_stream_handler("lk.chat", _reads(actor))
            # An agent hears callers, not its colleagues.
            await room.connect(server.url, token, rtc.RoomOptions(auto_subscribe=False))
            room.on("track_published", _subscribe_to_caller)
            for participant in room.remote_participants.values():
                for publication in participant.track_publications.values():
                    _subscribe_to_caller(publication, participant)
            await actor.microphone.publish(room)
            actors[role] = actor
        yield actors
    finally:
        for listener, actor in zip(listeners, actors.values(), strict=False):
            await actor.microphone.close()
            await listener.close()
            await actor.room.disconnect()


def _subscribe_to_caller(publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
    if participant.identity == "caller":
        publication.set_subscribed(True)


_reading: set[asyncio.Task[None]] = set()


def _reads(actor: Actor) -> Callable[[rtc.TextStreamReader, str], None]:
    def handle(reader: rtc.TextStreamReader, _identity: str) -> None:
        async def read() -> None:
            actor.typed.append(await reader.read_all())

        task = asyncio.create_task(read())
        _reading.add(task)
        task.add_done_callback(_reading.discard)

    return handle


async def _run(
    server: LiveKitServer, scenario: str, stage: Stage, happenings: list[Happening], record: Path | None = None
) -> Outcome:
    return await run_scenario(
        Scenario.parse(scenario),
        url=server.url,
        api_key=server.api_key,
        api_secret=server.api_secret,
        tell=happenings.append,
        watch=stage,
        record=record,
    )


async def test_a_whole_call_is_driven_heard_measured_and_recorded(
    livekit_server: LiveKitServer, tmp_path: Path
) -> None:
    async def play(actors: dict[str, Actor], handoffs: list[HandoffTiming]) -> None:
        receptionist, billing = actors["receptionist"], actors["billing"]
        await receptionist.until(lambda: "caller" in receptionist.heard.joined)
        await receptionist.take_floor(_fence())
        await asyncio.sleep(0.5)
        await receptionist.speak("Good morning, how can I help you?")
        await receptionist.caller_finished()
        decided = time.monotonic()
        await receptionist.speak("I will connect you.")
        await billing.take_floor(_fence())
        handoffs.append(
            HandoffTiming(from_role="receptionist", to_role="billing", decided=decided, ready=decided + 0.25)
        )
        await billing.say_until_interrupted("You are speaking with billing now. Your last invoice was higher.")
        await billing.caller_finished()
        await billing.speak("Yes, it is.")
        await billing.until(lambda: bool(billing.typed))
        await billing.speak("Thank you.")

    scenario = """
        name: little
        first: receptionist
        greetings: [how can i help you]
        steps:
          - expect: {from: receptionist, settle: 0.6}
          - say: A question about my bill.
          - barge_in: {after: 0.8, from: billing, say: 'Is that with tax?'}
          - expect: {settle: 0.6}
          - hang_up: {}
          - rejoin: {after: 0.3}
          - type: my number is 4711
          - expect: {settle: 0.6}
    """
    happenings: list[Happening] = []
    stage = Stage(livekit_server, ["receptionist", "billing"], play)

    outcome = await _run(livekit_server, scenario, stage, happenings, record=tmp_path)

    report = outcome.report
    assert report.reasons == ()
    assert (report.turns, report.answered_turns, report.double_answers, report.overlap_ms) == (3, 3, 0, 0)
    (handoff,) = report.handoffs
    assert (handoff.from_role, handoff.to_role, handoff.kind) == ("receptionist", "billing", HandoffKind.STANDBY)
    assert handoff.decision_to_ready_ms == 250
    assert 0 <= handoff.voice_gap_ms < 600
    barge_in = report.details[2]
    assert barge_in.barge_in
    assert barge_in.stopped_after_ms is not None
    assert 0 < barge_in.stopped_after_ms < 1500
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert file.getnchannels() == 3
        assert file.getnframes() / file.getframerate() == pytest.approx(report.duration_ms / 1000, abs=0.1)
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")
    told = [happening.what for happening in happenings]
    assert told.count(What.CALLER_JOINS) == 2
    assert [happening.who for happening in happenings if happening.what is What.FLOOR] == ["receptionist", "billing"]


async def test_two_agents_that_speak_at_once_in_a_real_room_are_found_out(livekit_server: LiveKitServer) -> None:
    async def play(actors: dict[str, Actor], _handoffs: list[HandoffTiming]) -> None:
        receptionist, billing = actors["receptionist"], actors["billing"]
        await receptionist.caller_finished()
        first = asyncio.create_task(receptionist.speak("I can tell you what your balance is."))
        await asyncio.sleep(1.2)
        await billing.speak("Your balance is forty two euros.")
        await first

    scenario = """
        name: at once
        first: receptionist
        steps:
          - say: What is my balance?
          - expect: {settle: 0.6}
    """

    outcome = await _run(livekit_server, scenario, Stage(livekit_server, ["receptionist", "billing"], play), [])

    assert not outcome.report.ok
    assert outcome.report.overlap_ms > 30
    assert outcome.report.double_answers == 1


async def test_a_server_that_refuses_the_key_is_named(livekit_server: LiveKitServer) -> None:
    scenario = Scenario.parse("{name: x, first: nobody, steps: [{silence: 0}]}")

    with pytest.raises(ScenarioAborted, match=r"does not create the room .* key and secret"):
        await run_scenario(scenario, url=livekit_server.url, api_key=livekit_server.api_key, api_secret="x" * 40)


def _fence() -> int:
    return time.time_ns() // 1000
