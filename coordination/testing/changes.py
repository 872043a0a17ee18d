"""Handoffs as the caller hears them: one voice ends, another begins.

That a voice changed, and how long nobody spoke around it, follows from the sound; only the times of the decision
and of the new agent's readiness are what Baton says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import numpy as np

from coordination.testing.answers import Answer
from coordination.testing.calls import Call, HandoffKind, HandoffTiming
from coordination.testing.hearing import Hearing, Span, Utterance
from coordination.testing.recording import FRAME

NATURAL_PAUSE = timedelta(milliseconds=300)
"""Nobody notices a shorter silence between two sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceChange:
    """The caller is with another role from here on."""

    from_role: str
    to_role: str
    kind: HandoffKind
    at: int
    """Frame of the new voice's first sound."""
    voice_gap: timedelta
    """From the last sound of the old voice (of the caller, of the absence: whichever was last) to the new one."""
    silence: timedelta
    """Silences beyond a natural pause between the decision and the new voice, added up.

    Without a known decision, from the end of the caller's turn. The caller's own speech is no silence.
    """
    decision_to_ready: timedelta | None
    """None if Baton's own times are not known."""


def voice_changes(call: Call, hearing: Hearing, found: tuple[Answer, ...]) -> tuple[VoiceChange, ...]:
    """The handoffs that were heard, in order. A replacement that speaks for the same role is none."""
    pairs = list(pairwise([(answer, said) for answer in found for said in answer.utterances]))
    changed = [(old, answer, new) for (_, old), (answer, new) in pairs if old.label != new.label]
    timings = _matched(call.handoffs, [(old.label, new.label) for old, _, new in changed])
    return tuple(
        _measure(call, hearing, answer, old, new, timing)
        for (old, answer, new), timing in zip(changed, timings, strict=True)
    )


def _measure(
    call: Call, hearing: Hearing, answer: Answer, old: Utterance, new: Utterance, timing: HandoffTiming | None
) -> VoiceChange:
    begin = new.span.start
    own = np.flatnonzero(hearing.caller_audible()[:begin])
    back = _back(call, hearing, begin)
    quiet_from = max(old.span.end, int(own[-1]) + 1 if len(own) else 0, back)
    decided = timing.decided if timing else None
    asked = answer.window.start if decided is None else hearing.recording.frame_at(decided)
    silences = hearing.silences(Span(start=max(asked, back), end=begin), longer_than=NATURAL_PAUSE)
    return VoiceChange(
        from_role=old.label,
        to_role=new.label,
        kind=(timing.kind if timing else None) or _kind(call, answer, new),
        at=begin,
        voice_gap=max(0, begin - quiet_from) * FRAME,
        silence=sum((span.duration for span in silences), timedelta(0)),
        decision_to_ready=timing.decision_to_ready if timing else None,
    )


def _back(call: Call, hearing: Hearing, before: int) -> int:
    """The frame in which the caller last came back; who has hung up waits for nobody."""
    returns = [hearing.recording.frame_at(back) for _, back in call.absences]
    return max((frame for frame in returns if frame <= before), default=0)


def _kind(call: Call, answer: Answer, new: Utterance) -> HandoffKind:
    """An agent that came into the room after the caller had asked was sent for."""
    joined = call.joined.get(new.speaker)
    sent_for = joined is not None and joined > answer.turn.started
    return HandoffKind.DISPATCHED if sent_for else HandoffKind.STANDBY


def _matched(timings: tuple[HandoffTiming, ...], heard: list[tuple[str, str]]) -> list[HandoffTiming | None]:
    """For each change that was heard the first untaken timing between the same roles."""
    left = list(timings)
    matched: list[HandoffTiming | None] = []
    for pair in heard:
        timing = next((each for each in left if (each.from_role, each.to_role) == pair), None)
        if timing is not None:
            left.remove(timing)
        matched.append(timing)
    return matched
