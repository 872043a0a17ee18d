"""What a session hears of the caller: nothing, everything, or everything that is kept for later.

A standby is deaf, so that no provider is paid for what it hears. From the moment it is ready to take over it keeps
what the caller says, and once its agent listens it gets that first: no word falls into the time that a speech-to-text
connection takes to open.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import timedelta
from enum import Enum, auto

from livekit import rtc
from livekit.agents.voice import io

KEPT_AT_MOST = timedelta(seconds=30)
"""Bounds the memory of a pre-roll: about 3 MB. Older audio is dropped first."""


class Hearing(Enum):
    DEAF = auto()
    """Frames are taken off the track and dropped."""
    KEEPING = auto()
    """Frames are kept for later."""
    LIVE = auto()
    """Frames reach the session: first those that were kept, in order."""


class CallerInput(io.AudioInput):
    """Stands between the caller's track and the session; deaf until it is told otherwise."""

    def __init__(self, source: io.AudioInput) -> None:
        super().__init__(label="Baton", source=source)
        self._source = source
        self._kept: deque[tuple[float, rtc.AudioFrame]] = deque()
        self._kept_seconds = 0.0
        self.hearing = Hearing.DEAF

    def deaf(self) -> None:
        """Drops what was kept, and all that comes."""
        self.hearing = Hearing.DEAF
        self._forget()

    def keep(self) -> None:
        """Begins a pre-roll, or goes on with the one that is being kept."""
        self.hearing = Hearing.KEEPING

    def live(self, *, since: float | None = None) -> None:
        """Lets the session hear. `since` (`time.monotonic()`) drops what was kept before that moment."""
        while since is not None and self._kept and self._kept[0][0] < since:
            self._take()
        self.hearing = Hearing.LIVE

    async def __anext__(self) -> rtc.AudioFrame:
        while True:
            frame = await self._source.__anext__()
            if self.hearing is Hearing.DEAF:
                continue
            if self.hearing is Hearing.LIVE and not self._kept:
                return frame
            self._put(frame)
            if self.hearing is Hearing.LIVE:
                return self._drain()

    def _put(self, frame: rtc.AudioFrame) -> None:
        self._kept.append((time.monotonic(), frame))
        self._kept_seconds += frame.duration
        while self._kept_seconds > KEPT_AT_MOST.total_seconds():
            self._take()

    def _take(self) -> rtc.AudioFrame:
        _, frame = self._kept.popleft()
        self._kept_seconds -= frame.duration
        return frame

    def _drain(self) -> rtc.AudioFrame:
        """All that was kept as one frame: handed on one by one, it would stay behind the live audio for good."""
        frames = [self._take() for _ in range(len(self._kept))]
        return rtc.combine_audio_frames(frames)

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_seconds = 0.0
