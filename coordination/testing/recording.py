"""What was heard in a call: each speaker on a channel of its own, all on one time line.

Sound reaches the ear as frames of 10 ms with their arrival times. A busy machine delivers some of them late and in a
bunch, though they were played on time; laying them out undoes that, so that a measurement is one of the call and not
of the machine that listens.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordination.errors import InvalidArgument

Samples = NDArray[np.int16]

SAMPLE_RATE = 24_000
"""Of recordings, in Hz: more than any of the voices has, a round number of samples in a frame."""
FRAME = timedelta(milliseconds=10)
"""How finely the ear measures; also how WebRTC delivers sound."""
FRAME_SECONDS = FRAME.total_seconds()
FRAME_SAMPLES = round(SAMPLE_RATE * FRAME_SECONDS)
AUDIBLE = 300
"""Peak of a frame (of 32767) from which it is sound: Opus leaves less of silence, speech has more."""

_LOOK_AHEAD = 300
"""Frames within which a bunch of late ones must have been caught up with: three seconds."""
_JUMP = FRAME_SECONDS / 2
"""A frame that is due later than this after its predecessor's end begins a new run: there was a pause."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Channel:
    """All that one participant was heard to say."""

    speaker: str
    """Identity of the participant."""
    samples: Samples
    """Mono, at `SAMPLE_RATE`; the first sample is heard at the recording's begin."""
    role: str | None = None
    """The role of an agent; None for the caller and for others who have none."""
    voice: bool = True
    """False for what is no voice (background sound): it counts for overlaps, not for answers."""

    @property
    def label(self) -> str:
        """What to call the speaker in front of people."""
        return self.role or self.speaker


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """A call as the caller heard it, the caller's own voice included."""

    caller: str
    """The caller's identity: the speaker of the caller's channel."""
    started: float
    """`time.monotonic()` of the first sample, in the process that recorded it."""
    channels: tuple[Channel, ...]

    @property
    def frames(self) -> int:
        """Length in frames of 10 ms, the last one perhaps partly filled."""
        longest = max((len(channel.samples) for channel in self.channels), default=0)
        return -(-longest // FRAME_SAMPLES)

    @property
    def duration(self) -> timedelta:
        return self.frames * FRAME

    @property
    def agents(self) -> tuple[Channel, ...]:
        """The channels of everybody but the caller."""
        return tuple(channel for channel in self.channels if channel.speaker != self.caller)

    def frame_at(self, moment: float) -> int:
        """The frame in which the `time.monotonic()` moment lies; negative before the begin."""
        return int((moment - self.started) // FRAME_SECONDS)

    def write_wav(self, path: Path) -> None:
        """Writes one file with a channel for each speaker, in the order of `channels`, aligned in time."""
        if not self.channels:
            raise InvalidArgument(f"There is nothing to write to {path}: nobody was heard")
        length = max(len(channel.samples) for channel in self.channels)
        table = np.zeros((length, len(self.channels)), dtype="<i2")
        for column, channel in enumerate(self.channels):
            table[: len(channel.samples), column] = channel.samples
        with wave.open(str(path), "wb") as file:
            file.setnchannels(len(self.channels))
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(table.tobytes())


@dataclass(slots=True, kw_only=True)
class Ear:
    """Takes in the frames of one track as they arrive, and knows at any moment when it last heard something."""

    speaker: str
    role: str | None = None
    voice: bool = True
    last_audible: float | None = None
    """`time.monotonic()` when sound last arrived."""
    audible_since: float | None = None
    """When sound first arrived after half a second or more of silence."""
    _arrivals: list[float] = field(default_factory=list[float])
    _frames: list[Samples] = field(default_factory=list[Samples])

    def hear(self, samples: Samples, *, at: float) -> None:
        """Takes one frame of `FRAME_SAMPLES` samples that arrived at `at`."""
        self._arrivals.append(at)
        self._frames.append(samples)
        if is_audible(samples):
            if self.last_audible is None or at - self.last_audible > 0.5:
                self.audible_since = at
            self.last_audible = at

    @property
    def arrivals(self) -> tuple[float, ...]:
        return tuple(self._arrivals)

    def lay_out(self, started: float, length: int) -> Samples:
        """The sound on a time line of `length` samples whose first one is heard at `started`."""
        line = np.zeros(length, dtype=np.int16)
        for position, frame in zip(_positions(self._arrivals, started), self._frames, strict=True):
            begin, end = max(position, 0), min(position + len(frame), length)
            if begin < end:
                line[begin:end] = frame[begin - position : end - position]
        return line


def is_audible(samples: Samples) -> bool:
    """Whether a frame has sound in it that a person would hear."""
    return bool(len(samples)) and max(int(samples.max()), -int(samples.min())) >= AUDIBLE


def compose(caller: str, ears: list[Ear], *, started: float, ended: float) -> Recording:
    """The recording of a call from the ears that listened: one channel for each speaker, the caller's first.

    Several tracks of a speaker become one channel; what is no voice keeps a channel of its own. The recording begins
    up to one frame before `started`.
    """
    started = _in_step(caller, ears, started)
    length = max(0, round((ended - started) * SAMPLE_RATE))
    mixed: dict[tuple[str, bool], NDArray[np.int32]] = {}
    roles: dict[str, str | None] = {}
    for ear in ears:
        line = ear.lay_out(started, length).astype(np.int32)
        key = (ear.speaker, ear.voice)
        mixed[key] = mixed[key] + line if key in mixed else line
        roles[ear.speaker] = ear.role or roles.get(ear.speaker)
    channels = [
        Channel(
            speaker=speaker,
            role=roles[speaker],
            voice=voice,
            samples=np.clip(line, -32768, 32767).astype(np.int16),
        )
        for (speaker, voice), line in mixed.items()
    ]
    channels.sort(key=lambda channel: channel.speaker != caller)
    return Recording(caller=caller, started=started, channels=tuple(channels))


def _in_step(caller: str, ears: list[Ear], started: float) -> float:
    """The last moment up to `started` from which the frames of what was received are whole frames away."""
    first = next((ear.arrivals for ear in ears if ear.speaker != caller and ear.arrivals), None)
    if first is None:
        return started
    return started - (started - min(_due(list(first)))) % FRAME_SECONDS


def _due(arrivals: list[float]) -> list[float]:
    """When each frame was played.

    Frames are produced every 10 ms and never arrive before they are produced, so a frame was due no later than
    any of its successors arrived, less the frames between them. The earliest such bound is when it was played.
    """
    count = len(arrivals)
    slack = np.asarray(arrivals) - np.arange(count) * FRAME_SECONDS
    padded = np.concatenate([slack, np.full(_LOOK_AHEAD, np.inf)])
    earliest = np.lib.stride_tricks.sliding_window_view(padded, _LOOK_AHEAD + 1).min(axis=1)
    due: list[float] = (earliest + np.arange(count) * FRAME_SECONDS).tolist()
    return due


def _positions(arrivals: list[float], started: float) -> list[int]:
    """Where on the time line each frame belongs, in samples."""
    positions: list[int] = []
    begin, first = 0.0, 0
    for index, due in enumerate(_due(arrivals)):
        moment = due - started
        expected = begin + (index - first) * FRAME_SECONDS
        if index == 0 or moment > expected + _JUMP:
            begin, first, expected = moment, index, moment
        # All tracks are played in one beat. A frame that lay across two of the time line would sound in both.
        positions.append(round(expected / FRAME_SECONDS) * FRAME_SAMPLES)
    return positions
