"""How a call came through a fault, by what its caller heard; only the team's own moments come from the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from coordination.room.events import Event
from coordination.testing.answers import Answer
from coordination.testing.hearing import Hearing, Span, Utterance
from coordination.testing.recording import FRAME
from coordination.testing.report import Report, Survival
from coordination.testing.runner import Outcome, monotonic

MILLISECOND = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubledCall:
    """One call that a fault struck."""

    outcome: Outcome
    events: tuple[Event, ...]


def survival(calls: Sequence[TroubledCall], *, struck: float) -> Survival:
    """The worst of all calls. `struck` is the moment of the fault (`time.monotonic()`)."""
    each = [_of_call(call, struck) for call in calls]
    return Survival(
        calls=len(each),
        lost_calls=sum(one.lost_calls for one in each),
        lost_turns=sum(one.lost_turns for one in each),
        silence_ms=max(one.silence_ms for one in each),
        overlap_ms=sum(one.overlap_ms for one in each),
        detected_ms=_worst(one.detected_ms for one in each),
        ready_ms=_worst(one.ready_ms for one in each),
        heard_ms=_worst(one.heard_ms for one in each),
    )


def together(calls: Sequence[TroubledCall], *, struck: float) -> Report:
    """One report on all calls of a scenario. It is ok if each of them is, and none was lost."""
    reports = [call.outcome.report for call in calls]
    came_through = survival(calls, struck=struck)
    named = len(reports) > 1
    reasons = (
        *(
            f"Call {number}: {reason}" if named else reason
            for number, report in enumerate(reports, start=1)
            for reason in report.reasons
        ),
        *([f"{came_through.lost_calls} of {len(calls)} calls were lost"] if came_through.lost_calls else []),
    )
    return reports[0].model_copy(
        update={
            "ok": not reasons,
            "reasons": reasons,
            "duration_ms": max(report.duration_ms for report in reports),
            "turns": sum(report.turns for report in reports),
            "answered_turns": sum(report.answered_turns for report in reports),
            "double_answers": sum(report.double_answers for report in reports),
            "overlap_ms": sum(report.overlap_ms for report in reports),
            "second_greetings": sum(report.second_greetings for report in reports),
            "handoffs": tuple(each for report in reports for each in report.handoffs),
            "details": tuple(each for report in reports for each in report.details),
            "overlaps": tuple(each for report in reports for each in report.overlaps),
            "survival": came_through,
        }
    )


def _of_call(call: TroubledCall, struck: float) -> Survival:
    findings = call.outcome.findings
    recording = findings.call.recording
    begin = max(0, recording.frame_at(struck))
    voices = Hearing(recording).utterances()
    moved = _moved(call.events, struck)
    waits = [waited for answer in findings.answers for waited in _waits(answer, begin)]
    return Survival(
        calls=1,
        lost_calls=int(not any(voice.span.start > begin for voice in voices)),
        lost_turns=sum(not answer.answered for answer in findings.turns),
        silence_ms=_milliseconds(max(waits, default=0)),
        overlap_ms=call.outcome.report.overlap_ms,
        detected_ms=moved and moved.detected_ms,
        ready_ms=moved and moved.ready_ms,
        heard_ms=moved and _heard(voices, max(0, recording.frame_at(moved.since)), moved.agent),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moved:
    """Another agent of the role that had the call has it now."""

    since: float
    """The fault; for an agent that was asked to go, when it asked for another one."""
    detected_ms: int | None
    ready_ms: int
    agent: str


def _moved(events: Sequence[Event], struck: float) -> _Moved | None:
    times = [(monotonic(event.at.timestamp()), event) for event in events]
    roles = [event.role for at, event in times if event.kind == "grant" and at <= struck]
    after = [(at, event) for at, event in times if at > struck]
    granted = next(((at, event) for at, event in after if event.kind == "grant" and event.role in roles[-1:]), None)
    if granted is None:
        return None
    at_first, first = next((at, event) for at, event in after if event.kind in _ABOUT)
    asked = first.kind == "offer"
    since = at_first if asked else struck
    return _Moved(
        since=since,
        detected_ms=None if asked else round((at_first - since) / MILLISECOND),
        ready_ms=round((granted[0] - since) / MILLISECOND),
        agent=granted[1].agent,
    )


_ABOUT = ("lost", "offer", "silence", "expire", "condemn", "grant")
"""What the team does about an agent that is gone, or asked to go, in the order in which it can happen."""


def _waits(answer: Answer, begin: int) -> Iterable[int]:
    """The silences of an answer, in frames: before it, and between its parts, from the fault on."""
    spans = [Span(start=answer.window.start, end=answer.window.start), *(each.span for each in answer.utterances)]
    for before, following in pairwise(spans):
        if following.start > begin:
            yield following.start - max(before.end, begin)


def _heard(voices: Iterable[Utterance], begin: int, agent: str) -> int | None:
    """From a frame to the first sound of an agent after it."""
    first = next((voice for voice in voices if voice.speaker.endswith(agent) and voice.span.end > begin), None)
    return None if first is None else _milliseconds(max(0, first.span.start - begin))


def _worst(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _milliseconds(frames: int) -> int:
    return round(frames * FRAME.total_seconds() / MILLISECOND)
