"""A microphone with a synthetic voice: a track that always sounds, mostly of silence, as a real one does."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import numpy as np
from livekit import rtc

from coordination.testing.reading import resample
from coordination.testing.recording import FRAME_SAMPLES, SAMPLE_RATE, Ear, Samples, is_audible
from coordination.testing.speech import Speech

_QUEUE_MS = 40
"""What the SDK plays behind our back: enough to bridge a late wake-up, little enough for exact times."""
_SILENCE = np.zeros(FRAME_SAMPLES, dtype=np.int16)


class Microphone:
    """Publishes a track in real time; `speak` puts words into it.

    `ear` hears what is sent, at the time at which it is sent.
    """

    def __init__(self, *, speaker: str) -> None:
        self.ear = Ear(speaker=speaker)
        self._source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=_QUEUE_MS)
        self._pending: deque[Samples] = deque()
        self._spoken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def publish(self, room: rtc.Room) -> None:
        """Publishes the track and begins to send silence."""
        track = rtc.LocalAudioTrack.create_audio_track("microphone", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)
        self._task = asyncio.create_task(self._send(), name="the caller's microphone")

    async def speak(self, speech: Speech) -> tuple[float, float]:
        """Says it in real time; returns when the first sound was sent and when the last one was.

        Cancelled, the caller falls silent at once.
        """
        frames = _frames(speech)
        begin = time.monotonic()
        self._spoken.clear()
        self._pending.extend(frames)
        try:
            if frames:
                await self._spoken.wait()
        except asyncio.CancelledError:
            self._pending.clear()
            raise
        end = time.monotonic() + _QUEUE_MS / 1000
        return max(begin, end - len(frames) * FRAME_SAMPLES / SAMPLE_RATE), end

    async def close(self) -> None:
        """Ends the track; harmless when it was never published."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._source.aclose()

    async def _send(self) -> None:
        while True:
            frame = self._pending.popleft() if self._pending else _SILENCE
            # The source takes a frame when it has room for it, which keeps the time for this loop.
            await self._source.capture_frame(rtc.AudioFrame(frame.tobytes(), SAMPLE_RATE, 1, FRAME_SAMPLES))
            self.ear.hear(frame, at=time.monotonic() + _QUEUE_MS / 1000)
            if not self._pending:
                self._spoken.set()


def _frames(speech: Speech) -> list[Samples]:
    """The speech in frames, without the silence around it."""
    samples = resample(speech.samples, speech.sample_rate, SAMPLE_RATE)
    filled = np.concatenate([samples, np.zeros(-len(samples) % FRAME_SAMPLES, dtype=np.int16)])
    frames = list(filled.reshape(-1, FRAME_SAMPLES))
    sounding = [index for index, frame in enumerate(frames) if is_audible(frame)]
    return frames[sounding[0] : sounding[-1] + 1] if sounding else []
