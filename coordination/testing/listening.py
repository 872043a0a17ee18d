"""The caller's ears in a real room: every remote audio track in frames of 10 ms, and what else reaches a caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from livekit import rtc

from coordination.livekit.envelope import MetadataError
from coordination.livekit.identity import is_agent
from coordination.livekit.messages import FLOOR_TOPIC, FloorAnnouncement
from coordination.livekit.record import SessionRecord
from coordination.livekit.room_events import on_room
from coordination.testing.calls import FloorChange
from coordination.testing.recording import SAMPLE_RATE, Ear

TRANSCRIPTION_TOPIC = "lk.transcription"
_ROLE_ATTRIBUTES = ("lk.agent.name", "lk.agent_name")
_FINAL = "lk.transcription_final"
_LONG_SPEECH = 2.0
"""Seconds after which speech that goes on is an answer, whenever it began."""
_STILL_SPEAKING = 0.3
"""Seconds of silence that don't end a sentence."""

_Work = Coroutine[Any, Any, None]


@dataclass(slots=True)
class Heard:
    """All that reached a caller, over all of the caller's connections."""

    ears: list[Ear] = field(default_factory=list[Ear])
    roles: dict[str, str] = field(default_factory=dict[str, str])
    """The role of each participant that has one, by identity."""
    joined: dict[str, float] = field(default_factory=dict[str, float])
    """When each participant came into the room (or was found there), by identity."""
    floor: list[FloorChange] = field(default_factory=list[FloorChange])

    def last_audible(self, role: str | None = None) -> float | None:
        """When the role, or anybody, was last heard."""
        moments = [ear.last_audible for ear in self._of(role) if ear.last_audible is not None]
        return max(moments, default=None)

    def began_after(self, moment: float, role: str | None = None) -> bool:
        """Whether the role, or anybody, began to speak after `moment`, or has spoken on for long since."""
        return any(
            (ear.audible_since is not None and ear.audible_since > moment)
            or (ear.last_audible is not None and ear.last_audible > moment + _LONG_SPEECH)
            for ear in self._of(role)
        )

    def speaking_since(self, role: str | None = None) -> float | None:
        """When whoever is speaking now began to; None if nobody is."""
        now = time.monotonic()
        return min(
            (
                ear.audible_since
                for ear in self._of(role)
                if ear.audible_since is not None
                and ear.last_audible is not None
                and now - ear.last_audible < _STILL_SPEAKING
            ),
            default=None,
        )

    def role_of(self, identity: str) -> str:
        """The role of a participant, else its identity."""
        return self.roles.get(identity, identity)

    def _of(self, role: str | None) -> list[Ear]:
        return [ear for ear in self.ears if ear.voice and (role is None or self.role_of(ear.speaker) == role)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ears:
    """What a listener calls as things reach it; all are called in the event loop and return at once."""

    on_joined: Callable[[str], None]
    on_left: Callable[[str], None]
    on_floor: Callable[[FloorChange], None]
    on_text: Callable[[str, str], None]
    """Somebody's words as text, with the identity; only for people to read along."""


class Listener:
    """Listens in one connection to a room, until closed."""

    def __init__(self, room: rtc.Room, heard: Heard, ears: Ears) -> None:
        self._room, self._heard, self._ears = room, heard, ears
        self._tasks: set[asyncio.Task[None]] = set()
        self._recordings: dict[str, asyncio.Task[None]] = {}
        self._ends = [
            on_room(room, "participant_connected", self._on_joined),
            on_room(room, "participant_disconnected", self._on_left),
            on_room(room, "participant_attributes_changed", self._on_attributes),
            on_room(room, "track_subscribed", self._on_track),
            on_room(room, "track_unsubscribed", self._on_track_gone),
            on_room(room, "data_received", self._on_data),
        ]
        room.register_text_stream_handler(TRANSCRIPTION_TOPIC, self._on_text)

    def look_around(self) -> None:
        """Takes notice of who was in the room before, and had the floor; to be called once connected."""
        for participant in self._room.remote_participants.values():
            self._on_joined(participant)
        # A grant is announced once. Who comes later finds it in the session record.
        record = self._record_of_the_call()
        if record is not None and record.role is not None and record.fence is not None:
            self._floor_is(agent=record.role, role=record.role, fence=record.fence)

    async def close(self) -> None:
        for end in self._ends:
            end()
        self._room.unregister_text_stream_handler(TRANSCRIPTION_TOPIC)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_joined(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity not in self._heard.joined:
            self._heard.joined[participant.identity] = time.monotonic()
            self._learn_role(participant)
            self._ears.on_joined(participant.identity)

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        for publication in participant.track_publications.values():
            self._stop_recording(publication.sid)
        self._ears.on_left(participant.identity)

    def _on_attributes(self, _changed: dict[str, str], participant: rtc.Participant) -> None:
        self._learn_role(participant)

    def _learn_role(self, participant: rtc.Participant) -> None:
        for name in _ROLE_ATTRIBUTES:
            if role := participant.attributes.get(name):
                self._heard.roles[participant.identity] = role
                return

    def _on_track(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        if track.kind != rtc.TrackKind.KIND_AUDIO:
            return
        self._learn_role(participant)
        voice = publication.source == rtc.TrackSource.SOURCE_MICROPHONE
        ear = Ear(speaker=participant.identity, voice=voice)
        self._heard.ears.append(ear)
        self._recordings[track.sid] = self._start(self._record(track, ear), f"listen to {participant.identity}")

    def _on_track_gone(self, track: rtc.Track, *_: object) -> None:
        self._stop_recording(track.sid)

    def _stop_recording(self, track_sid: str) -> None:
        """The media path of a track that is gone is used again: who went on listening would hear somebody else."""
        recording = self._recordings.pop(track_sid, None)
        if recording is not None:
            recording.cancel()

    async def _record(self, track: rtc.Track, ear: Ear) -> None:
        stream = rtc.AudioStream.from_track(track=track, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=10)
        try:
            async for event in stream:
                ear.hear(np.frombuffer(event.frame.data, dtype=np.int16), at=time.monotonic())
        finally:
            await stream.aclose()

    def _on_data(self, packet: rtc.DataPacket) -> None:
        if packet.topic != FLOOR_TOPIC or not is_agent(packet.participant):
            return
        announcement = FloorAnnouncement.decode(packet.data)
        if announcement is None:
            return
        self._floor_is(agent=announcement.agent, role=announcement.role, fence=announcement.fence)

    def _floor_is(self, *, agent: str, role: str | None, fence: int) -> None:
        if all(fence > change.fence for change in self._heard.floor):
            change = FloorChange(at=time.monotonic(), agent=agent, role=role, fence=fence)
            self._heard.floor.append(change)
            self._ears.on_floor(change)

    def _record_of_the_call(self) -> SessionRecord | None:
        try:
            return SessionRecord.parse(self._room.metadata, room=self._room.name)
        except MetadataError:
            return None

    def _on_text(self, reader: rtc.TextStreamReader, identity: str) -> None:
        self._start(self._read(reader, identity), f"read along with {identity}")

    async def _read(self, reader: rtc.TextStreamReader, identity: str) -> None:
        try:
            text = (await reader.read_all()).strip()
        except rtc.StreamError:
            # Whoever was writing it has left in the middle.
            return
        attributes = reader.info.attributes or {}
        own = identity == self._room.local_participant.identity
        # What was understood of the caller comes many times over until it is final.
        if text and not (own and attributes.get(_FINAL) != "true"):
            self._ears.on_text(identity, text)

    def _start(self, work: _Work, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
