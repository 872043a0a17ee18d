"""Whatever else an agent publishes is tied to the floor too, or refused with a sentence.

Background audio, and any other audio track of an agent beside its session's voice, is muted while the agent does not
hold the floor. Video, and avatars that speak as a participant of their own, cannot be followed that far: refused.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from datetime import timedelta

from livekit import rtc
from livekit.agents.types import ATTRIBUTE_PUBLISH_ON_BEHALF
from livekit.agents.voice import io
from livekit.agents.voice.avatar import DataStreamAudioOutput, QueueAudioOutput

from coordination.errors import CoordinationError
from coordination.livekit.gate import Gate
from coordination.livekit.room_events import on_room

VOICE_TRACK = "roomio_audio"
"""LiveKit's name for the track of a session's voice, unless its room options say otherwise."""
LOOK_EVERY = timedelta(milliseconds=50)
"""Between two looks at the lease: a lease that runs out says nothing. A muted track is silent at once, so this and the
media path stay well within the 300 ms that a voice has."""
SETTLED = timedelta(seconds=1)
"""After this long the SDK's word on whether a track is muted is the truth."""


class UnsupportedOutput(CoordinationError):
    """The session publishes something that cannot be tied to the floor."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        super().__init__(f"{what} cannot be tied to the floor, so two agents could be heard at once. {remedy}")


class TrackGate:
    """Mutes every audio track of the local participant, except the session's voice, while the gate is closed.

    Follows tracks that are published later as well: a `BackgroundAudioPlayer` needs to know nothing of it. A track
    that somebody else muted stays muted when the floor comes.
    """

    def __init__(self, room: rtc.Room, gate: Gate, *, voice: str = VOICE_TRACK) -> None:
        """`voice` names the one track that has its own gate."""
        self._room = room
        self._gate = gate
        self._voice = voice
        self._tracks: dict[str, rtc.LocalAudioTrack] = {}
        self._muted: set[str] = set()
        self._unmuted_at: dict[str, float] = {}
        self._ends: list[Callable[[], None]] = []
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Takes the tracks that are published already, and those to come. The room must be connected."""
        self._ends = [
            on_room(self._room, "local_track_published", self._on_published),
            on_room(self._room, "local_track_unpublished", self._on_unpublished),
            self._gate.on_change(self.apply),
        ]
        for publication in list(self._room.local_participant.track_publications.values()):
            self._on_published(publication, publication.track)

    async def aclose(self) -> None:
        """Follows nothing any more. Tracks stay as they are: an agent that ends without the floor stays silent."""
        while self._ends:
            self._ends.pop()()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    def apply(self) -> None:
        """Brings all tracks in line with the gate, now."""
        for sid, track in self._tracks.items():
            if not self._gate.is_open:
                self._mute(sid, track)
            elif sid in self._muted:
                self._muted.discard(sid)
                self._unmuted_at[sid] = time.monotonic()
                track.unmute()

    def _mute(self, sid: str, track: rtc.LocalAudioTrack) -> None:
        # `muted` follows the server's events: for a moment it can still tell what was before our own last command.
        settled = time.monotonic() - self._unmuted_at.get(sid, -math.inf) > SETTLED.total_seconds()
        if track.muted and (settled or sid in self._muted):
            return
        self._muted.add(sid)
        track.mute()

    def _on_published(self, publication: rtc.LocalTrackPublication, track: rtc.Track | None) -> None:
        if not isinstance(track, rtc.LocalAudioTrack) or publication.name == self._voice:
            return
        self._tracks[publication.sid] = track
        self.apply()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="baton: gate other tracks")

    def _on_unpublished(self, publication: rtc.LocalTrackPublication) -> None:
        self._tracks.pop(publication.sid, None)
        self._muted.discard(publication.sid)
        self._unmuted_at.pop(publication.sid, None)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            self.apply()


def check_outputs(output: io.AgentOutput, room: rtc.Room) -> None:
    """Raises `UnsupportedOutput` if the session speaks through something that the gate cannot hold back.

    That is an avatar, in the output chain or as a participant that publishes on the agent's behalf, or video.
    """
    remedy = "Start the session without an avatar."
    link = output.audio
    while link is not None:
        if isinstance(link, DataStreamAudioOutput | QueueAudioOutput):
            raise UnsupportedOutput(f"The avatar output {link.label!r}", remedy)
        link = link.next_in_chain
    if output.video is not None:
        raise UnsupportedOutput(f"The video output {output.video.label!r}", "Publish no video from the session.")
    if not room.isconnected():
        return
    own = room.local_participant.identity
    for participant in room.remote_participants.values():
        if participant.attributes.get(ATTRIBUTE_PUBLISH_ON_BEHALF) == own:
            raise UnsupportedOutput(f"The avatar {participant.identity!r}", remedy)
