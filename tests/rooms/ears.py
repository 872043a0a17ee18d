"""What a participant of a room really receives: a listener that keeps each track in 10 ms frames."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from livekit import rtc

AUDIBLE = 300
"""Peak of a frame (of 32767) from which it counts as sound: Opus leaves less of silence, speech has more."""
FRAME = 0.01
"""Seconds a frame lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardFrame:
    """10 ms as they arrived. `at` is `time.monotonic()` of arrival, in the listener's process."""

    at: float
    peak: int
    samples: array[int]

    @property
    def audible(self) -> bool:
        return self.peak >= AUDIBLE


@dataclass(slots=True)
class Ear:
    """One received track of one participant."""

    identity: str
    track_sid: str
    track_name: str
    frames: list[HeardFrame] = field(default_factory=list[HeardFrame])


class Listener:
    """A caller who says nothing and hears everything: one `Ear` per received audio track.

    Made by the fixture `listen`. Times are `time.monotonic()` seconds, so a test can compare them with the
    moment it did something itself.
    """

    def __init__(self, room: rtc.Room) -> None:
        self.room = room
        self.ears: list[Ear] = []
        self._tasks: dict[asyncio.Task[None], Ear] = {}
        room.on("track_subscribed", self._on_track)
        room.on("track_unsubscribed", lambda track, *_: self._stop(lambda ear: ear.track_sid == track.sid))
        room.on("participant_disconnected", lambda left: self._stop(lambda ear: ear.identity == left.identity))
        for participant in room.remote_participants.values():
            for publication in participant.track_publications.values():
                if publication.track is not None:
                    self._on_track(publication.track, publication, participant)

    def _on_track(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        if track.kind != rtc.TrackKind.KIND_AUDIO:
            return
        ear = Ear(identity=participant.identity, track_sid=track.sid, track_name=publication.name)
        self.ears.append(ear)
        task = asyncio.create_task(self._record(track, ear), name=f"listen to {participant.identity}")
        self._tasks[task] = ear
        task.add_done_callback(self._tasks.pop)

    def _stop(self, over: Callable[[Ear], bool]) -> None:
        """Ends ears whose track is gone: the media path is used again, and they would hear the next track on it."""
        for task, ear in list(self._tasks.items()):
            if over(ear):
                task.cancel()

    async def _record(self, track: rtc.Track, ear: Ear) -> None:
        stream = rtc.AudioStream.from_track(track=track, sample_rate=48000, num_channels=1, frame_size_ms=10)
        try:
            async for event in stream:
                samples = array("h", bytes(event.frame.data))
                peak = max((max(samples), -min(samples))) if samples else 0
                ear.frames.append(HeardFrame(at=time.monotonic(), peak=peak, samples=samples))
        finally:
            await stream.aclose()

    def frames(self, identity: str) -> list[HeardFrame]:
        """All frames of a participant, of all its tracks, in order of arrival."""
        frames = [frame for ear in self.ears if ear.identity == identity for frame in ear.frames]
        return sorted(frames, key=lambda frame: frame.at)

    def audible(self, identity: str, *, since: float = 0.0, until: float = float("inf")) -> list[HeardFrame]:
        """The frames of a participant with sound in them that arrived in [since, until)."""
        return [frame for frame in self.frames(identity) if frame.audible and since <= frame.at < until]

    def first_audible(self, identity: str, *, since: float = 0.0) -> float | None:
        """When the first sound of a participant arrived, None if it was never heard."""
        frames = self.audible(identity, since=since)
        return frames[0].at if frames else None

    def last_audible(self, identity: str, *, since: float = 0.0) -> float | None:
        """When the last sound of a participant arrived, None if it was never heard."""
        frames = self.audible(identity, since=since)
        return frames[-1].at if frames else None

    def seconds(self, identity: str, *, since: float = 0.0, until: float = float("inf")) -> float:
        """How long a participant was audible, in seconds of sound."""
        return len(self.audible(identity, since=since, until=until)) * FRAME

    def hears(self, identity: str, *, within: float = 0.1) -> bool:
        """Whether a sound of the participant arrived in the last `within` seconds."""
        return bool(self.audible(identity, since=time.monotonic() - within))

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def eventually(holds: Callable[[], object], description: str, *, within: float = 10.0) -> None:
    """Waits until `holds()` is true; fails with `description` after `within` seconds."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within:g} s: {description}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(room: rtc.Room) -> AsyncIterator[Listener]:
    listener = Listener(room)
    try:
        yield listener
    finally:
        await listener.close()
