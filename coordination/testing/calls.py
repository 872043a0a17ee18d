"""What a test call was: what the caller did and when, beside the recording of what the caller heard.

All moments are `time.monotonic()` of the caller's process, like those of the recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from coordination.testing.recording import Recording


class HandoffKind(StrEnum):
    """Where the new agent of a handoff comes from."""

    STANDBY = "standby"
    """It was in the room already."""
    DISPATCHED = "dispatched"
    """It was sent for."""


class TurnKind(StrEnum):
    """What an agent's next words are an answer to."""

    OPENING = "opening"
    """Nothing: the call begins."""
    SPOKEN = "spoken"
    TYPED = "typed"
    SILENCE = "silence"
    """The caller says nothing for a while; agents may ask whether anybody is there."""
    RETURN = "return"
    """The caller is back after hanging up."""

    @property
    def by_caller(self) -> bool:
        """Whether the caller said something, so that it counts as a turn."""
        return self in (TurnKind.SPOKEN, TurnKind.TYPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedAnswer:
    """What should follow a turn."""

    role: str | None = None
    """Who has the last word in it; None for whoever spoke before."""
    handoff: HandoffKind | None = None
    """The kind of the handoff on the way, if it matters."""
    parts: int = 1
    """How many separate answers are welcome: 2 for an agent that asks for patience and comes back later."""
    voices: int = 1
    """How many agents may share the answer: 2 where another one finishes what a lost one began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A moment from which an answer may come."""

    kind: TurnKind
    started: float
    ended: float
    """When the caller had finished: what is said from here on is the answer."""
    text: str = ""
    barge_in: bool = False
    """The caller spoke while an agent did."""
    expected: ExpectedAnswer | None = None
    """None where no answer is required."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorChange:
    """The room was told that the floor was granted."""

    at: float
    agent: str
    role: str | None
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffTiming:
    """What Baton itself says about a handoff that was committed. Not heard, but told."""

    from_role: str
    to_role: str
    kind: HandoffKind | None = None
    decided: float | None = None
    """When the holder offered the floor."""
    ready: float | None = None
    """When the new agent said that it was prepared."""

    @property
    def decision_to_ready(self) -> timedelta | None:
        if self.decided is None or self.ready is None:
            return None
        return timedelta(seconds=self.ready - self.decided)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A whole test call."""

    recording: Recording
    turns: tuple[Turn, ...]
    absences: tuple[tuple[float, float], ...] = ()
    """From when to when the caller had hung up."""
    floor: tuple[FloorChange, ...] = ()
    joined: Mapping[str, float] = field(default_factory=dict[str, float])
    """When each agent came into the room, by identity."""
    handoffs: tuple[HandoffTiming, ...] = ()
