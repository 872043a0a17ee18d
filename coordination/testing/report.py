"""The report of a test call: numbers and reasons, as JSON."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from coordination.testing.analysis import Findings, moment
from coordination.testing.answers import Answer
from coordination.testing.calls import HandoffKind, TurnKind
from coordination.testing.changes import VoiceChange
from coordination.testing.recording import FRAME

VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class HandoffReport(_Part):
    """One handoff as the caller heard it."""

    from_role: str = Field(serialization_alias="from", validation_alias="from")
    to_role: str = Field(serialization_alias="to", validation_alias="to")
    kind: HandoffKind
    at_ms: int
    """When the new voice began, from the start of the recording."""
    decision_to_ready_ms: int | None
    """Told by Baton; null if nobody was asked."""
    voice_gap_ms: int
    """Last sound of the old voice (or of the caller, if later) to the first of the new one."""
    silence_ms: int
    """Silences of more than a natural pause between decision and new voice, added up."""


class TurnReport(_Part):
    """One turn of the caller, and what followed it."""

    kind: TurnKind
    text: str
    at_ms: int
    """When the caller had finished."""
    answered_by: str | None
    """The role that had the last word of the answer."""
    answer_delay_ms: int | None
    double_answer: str | None
    """Why the turn counts as answered twice; null if it does not."""
    barge_in: bool
    stopped_after_ms: int | None
    """For how long the interrupted agent went on; null if the turn was no barge-in."""


class SavedRow(_Part):
    """One message of the call as the backend has it."""

    speaker: str
    role: str | None
    text: str
    matches: str | None
    """The caller's sentence by the script, or where the agent is heard in the recording; null for a row that nobody
    said."""


class Saved(_Part):
    """What the backend has of the call, compared with what was said in it."""

    conversation: str
    rows: tuple[SavedRow, ...]
    said: int
    """Turns of the caller, and passages that were heard of agents."""
    missing: tuple[str, ...]
    """Turns and passages for which there is no row."""
    doubled: tuple[str, ...]
    """What is there twice and was said once."""
    in_order: bool
    participants: int | None
    """Of the session's record; null if there is none."""
    messages: int | None
    handoffs: int | None = None
    roles: tuple[str, ...] = ()
    """Those that had the floor, by the session's record."""
    tickets: tuple[str, ...] = ()
    """What was promised to the caller: kind and number."""


class Survival(_Part):
    """How calls came through a fault, as their callers heard it; the worst of all calls where there are several."""

    calls: int
    lost_calls: int
    """Calls in which no agent was heard any more once the fault had struck."""
    lost_turns: int
    """Turns of callers that nobody answered."""
    silence_ms: int
    """The longest that a caller waited for an agent's voice from the fault on: for an answer, or for its rest."""
    overlap_ms: int
    detected_ms: int | None
    """From the fault to the first that the team did about it; null where there was nothing to do."""
    ready_ms: int | None
    """From the fault until another agent had the floor; null where none was needed."""
    heard_ms: int | None
    """From the fault to the first sound of that agent."""


class Report(_Part):
    """What a scenario's run showed. `ok` is true if and only if `reasons` is empty."""

    version: int = VERSION
    scenario: str
    ok: bool
    reasons: tuple[str, ...]
    """What was wrong, for people."""
    duration_ms: int
    turns: int
    """Turns of the caller that require an answer."""
    answered_turns: int
    double_answers: int
    overlap_ms: int
    """For how long two different agents were heard at once."""
    second_greetings: int
    handoffs: tuple[HandoffReport, ...]
    details: tuple[TurnReport, ...]
    overlaps: tuple[str, ...]
    saved: Saved | None = None
    """Null for a call without a backend."""
    survival: Survival | None = None
    """Null for a call without a fault."""
    files: dict[str, str] = Field(default_factory=dict[str, str])
    """What was written beside the report, by kind."""

    @classmethod
    def of(cls, findings: Findings, *, scenario: str, faults: tuple[str, ...] = ()) -> Report:
        """The report on a call. `faults` is what went wrong besides: a step that could not be done, for instance."""
        reasons = (*faults, *findings.faults)
        answered = findings.turns
        return cls(
            scenario=scenario,
            ok=not reasons,
            reasons=reasons,
            duration_ms=_milliseconds(findings.call.recording.duration),
            turns=len(answered),
            answered_turns=sum(answer.answered for answer in answered),
            double_answers=sum(answer.doubled is not None for answer in findings.answers),
            overlap_ms=_milliseconds(findings.overlap),
            second_greetings=len(findings.second_greetings),
            handoffs=tuple(_handoff(change) for change in findings.changes),
            details=tuple(_turn(answer) for answer in findings.answers),
            overlaps=tuple(
                f"{' and '.join(each.labels)}: {each.span.milliseconds} ms at {moment(each.span.start)}"
                for each in findings.overlaps
            ),
        )

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2) + "\n"

    def write(self, path: Path) -> None:
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Raises pydantic's `ValidationError` for what is no report of this version."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))


def _handoff(change: VoiceChange) -> HandoffReport:
    ready = change.decision_to_ready
    return HandoffReport(
        from_role=change.from_role,
        to_role=change.to_role,
        kind=change.kind,
        at_ms=_milliseconds(change.at * FRAME),
        decision_to_ready_ms=None if ready is None else _milliseconds(ready),
        voice_gap_ms=_milliseconds(change.voice_gap),
        silence_ms=_milliseconds(change.silence),
    )


def _turn(answer: Answer) -> TurnReport:
    return TurnReport(
        kind=answer.turn.kind,
        text=answer.turn.text,
        at_ms=_milliseconds(answer.window.start * FRAME),
        answered_by=answer.last_role,
        answer_delay_ms=None if answer.delay is None else _milliseconds(answer.delay),
        double_answer=answer.doubled,
        barge_in=answer.turn.barge_in,
        stopped_after_ms=None if answer.leftover is None else _milliseconds(answer.leftover),
    )


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
