"""What a person would hear of a call: who is audible when, who speaks at the same time, where nobody does.

Everything follows from the sound alone, in frames of 10 ms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from coordination.testing.recording import AUDIBLE, FRAME, FRAME_SAMPLES, Channel, Recording, Samples

Flags = NDArray[np.bool_]
_Wanted = Callable[[Channel], bool]

CLOSURE = timedelta(milliseconds=120)
"""A voice is not silent while its lips are closed: gaps up to this one lie within a word."""
PAUSE = timedelta(milliseconds=700)
"""A longer gap ends an utterance; shorter ones lie between its sentences."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """A stretch of a recording: frames from `start` to before `end`."""

    start: int
    end: int

    @property
    def duration(self) -> timedelta:
        return (self.end - self.start) * FRAME

    @property
    def milliseconds(self) -> int:
        return round(self.duration / timedelta(milliseconds=1))

    def overlap(self, other: Span) -> Span | None:
        """What both have in common, None if that is nothing."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Span(start=start, end=end) if start < end else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """Something that one speaker said, from its first sound to its last."""

    speaker: str
    role: str | None
    span: Span

    @property
    def label(self) -> str:
        return self.role or self.speaker


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Two different agents were heard at once."""

    speakers: tuple[str, str]
    labels: tuple[str, str]
    """What to call them in front of people."""
    span: Span


class Hearing:
    """One recording, listened to."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._length = recording.frames
        self._flags = [audible_frames(channel.samples, self._length) for channel in recording.channels]

    def audible(self, speaker: str) -> Flags:
        """For each frame, whether the speaker is heard in it (background sound included)."""
        return self._any(lambda channel: channel.speaker == speaker)

    def agents_audible(self) -> Flags:
        """For each frame, whether any agent's voice is heard in it."""
        return self._any(lambda channel: channel.speaker != self.recording.caller and channel.voice)

    def caller_audible(self) -> Flags:
        """For each frame, whether the caller speaks."""
        return self.audible(self.recording.caller)

    def utterances(self, *, pause: timedelta = PAUSE) -> tuple[Utterance, ...]:
        """What the agents said, in order of their beginnings; gaps longer than `pause` separate utterances."""
        found = [
            Utterance(speaker=channel.speaker, role=channel.role, span=span)
            for channel, flags in zip(self.recording.channels, self._flags, strict=True)
            if channel.voice and channel.speaker != self.recording.caller
            for span in spans(flags, gap=pause)
        ]
        return tuple(sorted(found, key=lambda utterance: utterance.span))

    def overlaps(self) -> tuple[Overlap, ...]:
        """Where two different agents are heard at once; the caller talking over an agent is none.

        A voice counts as heard through the short closures within its words, so that two voices that interleave
        are found as well as two that coincide.
        """
        voices: dict[str, Flags] = {}
        labels: dict[str, str] = {}
        for channel in self.recording.agents:
            voices[channel.speaker] = close_gaps(self.audible(channel.speaker), CLOSURE)
            labels[channel.speaker] = channel.label
        found = [
            Overlap(speakers=(one, other), labels=(labels[one], labels[other]), span=span)
            for one, other in combinations(voices, 2)
            for span in spans(voices[one] & voices[other])
        ]
        return tuple(sorted(found, key=lambda overlap: overlap.span))

    def silences(self, within: Span, *, longer_than: timedelta) -> tuple[Span, ...]:
        """Stretches of `within` in which neither an agent nor the caller is heard."""
        start, end = max(within.start, 0), min(within.end, self._length)
        if start >= end:
            return ()
        quiet = ~(self.agents_audible() | self.caller_audible())[start:end]
        found = (Span(start=span.start + start, end=span.end + start) for span in spans(quiet))
        return tuple(span for span in found if span.duration > longer_than)

    def _any(self, wanted: _Wanted) -> Flags:
        heard = np.zeros(self._length, dtype=np.bool_)
        for channel, flags in zip(self.recording.channels, self._flags, strict=True):
            if wanted(channel):
                heard |= flags
        return heard


def audible_frames(samples: Samples, length: int) -> Flags:
    """For each of `length` frames, whether there is sound in it."""
    padded = np.zeros(length * FRAME_SAMPLES, dtype=np.int32)
    usable = min(len(samples), len(padded))
    padded[:usable] = samples[:usable]
    return np.abs(padded).reshape(length, FRAME_SAMPLES).max(axis=1, initial=0) >= AUDIBLE


def spans(flags: Flags, *, gap: timedelta = timedelta(0)) -> list[Span]:
    """The stretches of set flags, those with at most `gap` between them taken as one."""
    return list(_join(_runs(flags), gap // FRAME))


def close_gaps(flags: Flags, gap: timedelta) -> Flags:
    """The flags with the gaps of at most `gap` between set ones set as well."""
    closed = np.zeros_like(flags)
    for span in spans(flags, gap=gap):
        closed[span.start : span.end] = True
    return closed


def _runs(flags: Flags) -> Iterator[Span]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for start, end in edges.reshape(-1, 2).tolist():
        yield Span(start=start, end=end)


def _join(runs: Iterator[Span], gap: int) -> Iterator[Span]:
    open_: Span | None = None
    for run in runs:
        if open_ is not None and run.start - open_.end <= gap:
            open_ = Span(start=open_.start, end=run.end)
            continue
        if open_ is not None:
            yield open_
        open_ = run
    if open_ is not None:
        yield open_
