"""A caller who speaks the words of `tests.rooms.providers` and hears what the room's agents say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from livekit import rtc

from tests.rooms.ears import Listener, listening
from tests.rooms.providers import utterance
from tests.rooms.rig import LiveRoom

SILENCE = 0.02


class Caller:
    """Publishes one track, on which silence runs while nothing is said: as a microphone does."""

    def __init__(self, room: rtc.Room, ears: Listener) -> None:
        self.room, self.ears = room, ears
        self._words: asyncio.Queue[tuple[rtc.AudioFrame, asyncio.Event]] = asyncio.Queue()
        self._source = rtc.AudioSource(48000, 1, queue_size_ms=100)

    async def publish(self) -> None:
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        await self.room.local_participant.publish_track(track, options)

    async def say(self, text: str) -> None:
        """Returns when the last word has been spoken."""
        done = asyncio.Event()
        self._words.put_nowait((utterance(text), done))
        await done.wait()

    async def text(self, text: str) -> None:
        await self.room.local_participant.send_text(text, topic="lk.chat")

    async def run(self) -> None:
        count = int(48000 * SILENCE)
        hush = rtc.AudioFrame(bytes(2 * count), 48000, 1, count)
        while True:
            if self._words.empty():
                await self._source.capture_frame(hush)
                continue
            frame, done = self._words.get_nowait()
            data = memoryview(bytes(frame.data))
            for start in range(0, len(data) // 2, count):
                piece = bytes(data[2 * start : 2 * (start + count)])
                await self._source.capture_frame(rtc.AudioFrame(piece, 48000, 1, len(piece) // 2))
            done.set()


@asynccontextmanager
async def calling(room: LiveRoom, *, identity: str = "caller") -> AsyncIterator[Caller]:
    joined = await room.join(identity)
    async with listening(joined) as ears:
        caller = Caller(joined, ears)
        await caller.publish()
        speaking = asyncio.create_task(caller.run(), name=f"{identity} speaks")
        try:
            yield caller
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)
