"""One call of a chaos run: a caller who talks and listens, and everything about it that enters the history."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from livekit import api, rtc

from coordination.livekit.identity import agent_of
from coordination.livekit.room_events import on_room
from coordination.testing.history import Answer, CallEnded, CallerTurn, FloorEvent, History, Presence
from coordination.testing.listening import Ears, Heard, Listener
from coordination.testing.microphone import Microphone
from coordination.testing.recorder import EventRecorder, record_announcements, record_hearing
from coordination.testing.recording import compose
from coordination.testing.schedule import Phase, PhaseObserver
from tests.chaos.rig import Job, Rig
from tests.chaos.words import ROLES, answers_heard, name_number, speech, words_heard
from tests.rooms.rig import create_room
from tests.rooms.team import STANDBY

QUIET = 0.35
"""Seconds without a sound after which nobody is speaking any more."""
PATIENCE = 10.0
"""How long the caller waits for an answer before asking something else."""
SENT_WITHIN = 12.0
"""How long an agent that was sent for may take on a busy machine before another one is."""
CALLER = "caller"


class Missed(Exception):
    """A phase did not come about."""


@dataclass(slots=True)
class ChaosCall:
    """A call in progress. Made by `calling`."""

    name: str
    rig: Rig
    history: History
    room: rtc.Room
    sid: str
    client: api.LiveKitAPI
    heard: Heard
    microphone: Microphone
    recorder: EventRecorder
    observer: PhaseObserver
    started: float
    mutants: tuple[str, str]
    """What is broken in the first agent, and in those that are sent for to stand by."""
    speaking: bool = False
    grants: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    joined: set[str] = field(default_factory=set[str])
    """The agents that ever had a seat in the call."""
    dispatches: int = 0
    """How many agents this test had to send for itself."""
    presences: list[tuple[str, bool, bool, float]] = field(default_factory=list[tuple[str, bool, bool, float]])
    _numbers: int = 0

    # -- the caller -------------------------------------------------------------------------------

    async def say(self, words: str = "") -> CallerTurn:
        """A turn of its own name; returns when the last word has been said."""
        name = name_number(self._numbers)
        self._numbers += 1
        text = f"{words} {name}".strip()
        self.speaking = True
        try:
            at, until = await self.microphone.speak(speech(text))
        finally:
            self.speaking = False
        turn = CallerTurn(call=self.name, turn=name, at=at, until=until, text=text)
        self.history.append(turn)
        return turn

    async def answered(self, turn: CallerTurn, *, within: float = PATIENCE) -> bool:
        """Waits until somebody began to speak after the turn, and is silent again."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if self.heard.began_after(turn.until) and self.quiet:
                return True
            await asyncio.sleep(0.02)
        return False

    async def type(self, text: str) -> None:
        await self.room.local_participant.send_text(text, topic="lk.chat")

    @property
    def quiet(self) -> bool:
        last = self.heard.last_audible()
        return not self.speaking and (last is None or time.monotonic() - last > QUIET)

    async def until(self, holds: Callable[[], object], *, within: float, what: str) -> None:
        deadline = time.monotonic() + within
        while not holds():
            if time.monotonic() > deadline:
                raise Missed(what)
            await asyncio.sleep(0.01)

    # -- the agents -------------------------------------------------------------------------------

    @property
    def jobs(self) -> list[Job]:
        """The agents that are in the room and whose processes live; of a role the newest."""
        present = {agent_of(identity) for identity in self.room.remote_participants}
        newest = {job.role: job for job in self.rig.jobs(self.name) if job.agent in present}
        return list(newest.values())

    def job(self, role: str) -> Job | None:
        return next((job for job in self.jobs if job.role == role), None)

    def holder(self) -> Job | None:
        """Who has the floor, as far as was told in the room, or recorded by the store."""
        told = [(change.fence, change.agent) for change in self.heard.floor]
        _, granted = max([*told, *self.grants], default=(0, ""))
        return next((job for job in self.jobs if job.agent == granted), None)

    def on_event(self, event: FloorEvent) -> None:
        self.observer.on_event(event)
        if event.kind == "join":
            self.joined.add(event.agent)
        elif event.kind == "grant":
            self.grants.append((event.fence, event.agent))

    def standby(self) -> Job | None:
        holder = self.holder()
        return next((job for job in self.jobs if holder is not None and job.agent != holder.agent), None)

    def metadata(self, standby: bool) -> dict[str, object]:
        mutant = self.mutants[standby]
        return {**({"mutant": mutant} if mutant else {}), **(STANDBY if standby else {})}

    async def send_for(self, role: str, *, standby: bool) -> None:
        self.dispatches += 1
        request = api.CreateAgentDispatchRequest(
            agent_name=role, room=self.name, metadata=json.dumps(self.metadata(standby))
        )
        await self.client.agent_dispatch.create_dispatch(request)

    async def complete(self, *, patience: float) -> None:
        """Returns when both roles are there and one of them has the floor; sends for whoever is missing too long."""
        since: dict[str, float] = {}
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            missing = [role for role in ROLES if self.job(role) is None]
            since = {role: since.get(role, time.monotonic()) for role in missing}
            if not missing and self.holder() is not None and all(job.agent in self.joined for job in self.jobs):
                return
            for role, moment in since.items():
                if role != ROLES[0] and not self.joined:
                    continue  # A standby that comes before anybody else would be the one that has the floor.
                if time.monotonic() - moment > patience:
                    await self.send_for(role, standby=self.holder() is not None or role != ROLES[0])
                    since[role] = time.monotonic() + SENT_WITHIN
            await asyncio.sleep(0.05)
        raise Missed(f"the team of {self.name} is not complete: {[job.role for job in self.jobs]}")

    # -- phases -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def in_phase(self, wanted: Phase) -> AsyncIterator[None]:
        """Brings the phase about, as well as it can: look which one it is. What was begun is ended."""
        talking: list[asyncio.Task[CallerTurn]] = []
        with suppress(Missed):
            await self._bring_about(wanted, talking)
        try:
            yield
        finally:
            for turn in talking:
                await self.answered(await turn, within=6.0)

    async def _bring_about(self, wanted: Phase, talking: list[asyncio.Task[CallerTurn]]) -> None:
        await self.until(lambda: self.quiet and self.observer.phase is Phase.IDLE, within=8.0, what="quiet")
        if wanted is Phase.IDLE:
            return
        if wanted is Phase.CALLER:
            talking.append(self._talk("alpha bravo charlie delta alpha bravo"))
        elif wanted is Phase.AGENT:
            await self.say("more")
        else:
            holder = self.holder()
            if holder is None:
                raise Missed("nobody holds the floor")
            await self.type(next(role for role in ROLES if role != holder.role))
            if wanted is Phase.READY:
                await self.until(lambda: self.observer.phase is Phase.PREPARE, within=4.0, what="an offer")
                talking.append(self._talk("alpha bravo charlie delta " * 3))
        await self.until(lambda: self.observer.phase is wanted, within=6.0, what=wanted)
        if wanted in (Phase.CALLER, Phase.AGENT):
            await asyncio.sleep(0.4)

    def _talk(self, words: str) -> asyncio.Task[CallerTurn]:
        return asyncio.create_task(self.say(words), name=f"{self.name} talks")

    # -- the end ----------------------------------------------------------------------------------

    async def record(self) -> None:
        """What was heard, once nothing more is."""
        recording = await asyncio.to_thread(
            compose, CALLER, self.heard.ears, started=self.started, ended=time.monotonic()
        )
        record_hearing(self.history, call=self.name, recording=recording)
        record_announcements(self.history, call=self.name, floor=self.heard.floor)
        for identity, agent, present, at in self.presences:
            self.history.append(
                Presence(
                    call=self.name,
                    at=at,
                    who=agent_of(identity) or identity,
                    agent=agent,
                    present=present,
                    role=self.heard.roles.get(identity, ""),
                )
            )
        for channel in recording.agents:
            for turn, first, last in answers_heard(list(words_heard(recording, channel.speaker))):
                who = agent_of(channel.speaker) or channel.speaker
                self.history.append(Answer(call=self.name, turn=turn, agent=who, at=first.at, until=last.until))


@asynccontextmanager
async def calling(
    name: str, rig: Rig, history: History, *, mutants: tuple[str, str] = ("", "")
) -> AsyncIterator[ChaosCall]:
    """A call that an agent has answered, with the other role standing by; recorded to its end."""
    client = rig.livekit.client()
    try:
        live = await create_room(rig.livekit, client, name=name)
        heard, room, microphone = Heard(), rtc.Room(), Microphone(speaker=CALLER)
        call: list[ChaosCall] = []
        observer = PhaseObserver(
            caller_speaks=lambda: call[0].speaking,
            agent_speaks=lambda: heard.speaking_since() is not None,
            now=time.monotonic,
        )
        recorder = EventRecorder(
            history, call=name, room=live.sid, redis_url=rig.valkey.url, tell=lambda event: call[0].on_event(event)
        )
        listener = Listener(room, heard, _deaf())
        call.append(
            ChaosCall(
                name=name,
                rig=rig,
                history=history,
                room=room,
                sid=live.sid,
                client=client,
                heard=heard,
                microphone=microphone,
                recorder=recorder,
                observer=observer,
                started=time.monotonic(),
                mutants=mutants,
            )
        )
        async with recorder:
            ends = list(_watch(call[0]))
            try:
                await room.connect(rig.livekit.url, rig.livekit.token(name, CALLER))
                await microphone.publish(room)
                listener.look_around()
                await call[0].complete(patience=0.0)
                greeted = lambda: heard.last_audible() is not None and call[0].quiet  # noqa: E731
                await call[0].until(greeted, within=15.0, what="a greeting")
                yield call[0]
            finally:
                history.append(CallEnded(call=name, at=time.monotonic()))
                for end in ends:
                    end()
                await microphone.close()
                await listener.close()
                await room.disconnect()
                await call[0].record()
                # Agents leave a moment after their caller; what they do then belongs to the record, too.
                await _left(rig, name)
    finally:
        await client.aclose()


async def _left(rig: Rig, name: str) -> None:
    deadline = time.monotonic() + 10
    while rig.jobs(name) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)


def _watch(call: ChaosCall) -> Iterator[Callable[[], None]]:
    def note(participant: Any, present: bool) -> None:
        kind = participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
        call.presences.append((participant.identity, kind, present, time.monotonic()))

    yield on_room(call.room, "participant_connected", lambda participant: note(participant, True))
    yield on_room(call.room, "participant_disconnected", lambda participant: note(participant, False))


def _deaf() -> Ears:
    return Ears(
        on_joined=lambda _: None,
        on_left=lambda _: None,
        on_floor=lambda _: None,
        on_text=lambda _identity, _text: None,
    )
